"""L2 alone in one stage: r34 -> r18."""

_base_ = 'r34_r18_lshl2.py'

model = dict(
    distiller=dict(
        losses=dict(pooled=[dict(type='FeatureL2Loss', loss_weight=0.5)])
    )
)
