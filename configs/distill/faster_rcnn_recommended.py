"""LSH and relative L2 on RoIs, L2 on the FPN, into an inherited head.

The weights are those of a study on generated images (docs/results.md).
"""

_base_ = 'faster_rcnn_lshfm.py'

model = dict(
    inherit=True,
    distiller=dict(
        active=['roi', 'fpn'],
        losses=dict(
            roi=[
                dict(type='LSHLoss', loss_weight=4),
                dict(type='RelativeL2Loss', loss_weight=4),
            ],
            fpn=[dict(type='RelativeL2Loss', loss_weight=1)],
        ),
    ),
)
