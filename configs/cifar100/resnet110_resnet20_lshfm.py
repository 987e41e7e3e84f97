"""Correct-only LSHL2: resnet110 -> resnet20."""

_base_ = 'resnet20.py'
custom_imports = dict(imports=['lshfm_mm'])
custom_hooks = [
    dict(type='LSHCalibrationHook', num_batches=None),
    dict(type='AverageCheckpointsHook', num_epochs=10),
]

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/resnet110.py'),
    teacher_ckpt='work_dirs/cifar100/resnet110.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(pooled=dict(layer='head.fc', weights='correct')),
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=32 * 64,
                    bias='median',
                    loss_weight=6,
                ),
                dict(type='FeatureL2Loss', loss_weight=6),
            ]
        ),
    ),
)
