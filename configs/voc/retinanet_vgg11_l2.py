"""L2 alone on the class tower: vgg16 -> vgg11."""

_base_ = 'retinanet_vgg11_lshfm.py'

model = dict(
    distiller=dict(
        losses=dict(cls=[dict(type='FeatureL2Loss', loss_weight=8)])
    )
)
