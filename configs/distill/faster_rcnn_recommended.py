"""LSH and relative L2 on RoIs, into a head inherited from the teacher."""

_base_ = 'faster_rcnn_lshfm.py'

model = dict(
    inherit=True,
    distiller=dict(
        losses=dict(
            roi=[
                dict(type='LSHLoss', loss_weight=1),
                dict(type='RelativeL2Loss', loss_weight=1),
            ]
        )
    ),
)
