"""L2 alone on all samples: vgg13 -> vgg8."""

_base_ = 'vgg13_vgg8_lshfm.py'
custom_hooks = [dict(type='AverageCheckpointsHook', num_epochs=10)]

model = dict(
    distiller=dict(
        taps=dict(pooled=dict(weights='uniform')),
        losses=dict(pooled=[dict(type='FeatureL2Loss', loss_weight=6)]),
    )
)
