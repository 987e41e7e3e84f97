"""L2 alone on RoIs: r101 -> r50."""

_base_ = 'faster_rcnn_r50_lshfm.py'

model = dict(
    distiller=dict(
        losses=dict(roi=[dict(type='FeatureL2Loss', loss_weight=7)])
    )
)
