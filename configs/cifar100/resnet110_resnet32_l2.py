"""L2 alone on all samples: resnet110 -> resnet32."""

_base_ = 'resnet110_resnet32_lshfm.py'
custom_hooks = [dict(type='AverageCheckpointsHook', num_epochs=10)]

model = dict(
    distiller=dict(
        taps=dict(pooled=dict(weights='uniform')),
        losses=dict(pooled=[dict(type='FeatureL2Loss', loss_weight=6)]),
    )
)
