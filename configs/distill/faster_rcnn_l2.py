"""L2 alone on the RoIs of Faster R-CNN."""

_base_ = 'faster_rcnn_lshfm.py'

model = dict(
    distiller=dict(
        losses=dict(
            roi=[
                dict(
                    type='L2Loss',
                    normalize=False,
                    div_element=True,
                    loss_weight=7,
                )
            ]
        ),
    )
)
