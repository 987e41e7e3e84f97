"""Correct-only LSHL2: wrn_40_2 -> wrn_16_2."""

_base_ = 'wrn_16_2.py'
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
    teacher=dict(cfg_path='{{ fileDirname }}/wrn_40_2.py'),
    teacher_ckpt='work_dirs/cifar100/wrn_40_2.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(pooled=dict(layer='head.fc', weights='correct')),
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=32 * 128,
                    bias='median',
                    loss_weight=6,
                ),
                dict(type='FeatureL2Loss', loss_weight=6),
            ]
        ),
    ),
)
