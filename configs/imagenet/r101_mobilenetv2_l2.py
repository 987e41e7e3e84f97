"""L2 alone on all images: r101 -> mobilenetv2."""

_base_ = 'r101_mobilenetv2_lshl2.py'

model = dict(
    distiller=dict(
        losses=dict(pooled=[dict(type='FeatureL2Loss', loss_weight=5)])
    )
)
