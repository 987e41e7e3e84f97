"""L2 alone on all samples: wrn_40_2 -> shufflenetv1."""

_base_ = 'wrn_40_2_shufflenetv1_lshfm.py'
custom_hooks = [dict(type='AverageCheckpointsHook', num_epochs=10)]

model = dict(
    distiller=dict(
        taps=dict(pooled=dict(weights='uniform')),
        losses=dict(pooled=[dict(type='FeatureL2Loss', loss_weight=6)]),
    )
)
