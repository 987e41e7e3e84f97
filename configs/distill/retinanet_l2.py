"""L2 alone on the class tower of RetinaNet."""

_base_ = 'retinanet_lshfm.py'

model = dict(
    distiller=dict(
        losses=dict(
            cls=[
                dict(type='FeatureL2Loss', loss_weight=7),
            ]
        ),
    ),
)
