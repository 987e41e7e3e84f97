"""L2 alone on all samples: wrn_40_2 -> wrn_16_2."""

_base_ = 'wrn_40_2_wrn_16_2_lshfm.py'
custom_hooks = [dict(type='AverageCheckpointsHook', num_epochs=10)]

model = dict(
    distiller=dict(
        taps=dict(pooled=dict(weights='uniform')),
        losses=dict(pooled=[dict(type='FeatureL2Loss', loss_weight=6)]),
    )
)
