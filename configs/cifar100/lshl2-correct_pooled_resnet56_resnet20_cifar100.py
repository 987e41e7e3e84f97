"""Correct-only LSHL2: resnet56 -> resnet20."""

_base_ = 'resnet20_cifar100.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)
custom_hooks = [
    dict(type='LSHCalibrationHook', num_batches=None),
    dict(type='AverageCheckpointsHook', num_epochs=10),
]

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/resnet56_cifar100.py'),
    teacher_ckpt='work_dirs/resnet56_cifar100.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(
            lsh=dict(layer='head.fc', weights='correct'),
            l2=dict(layer='head.fc', weights='correct'),
        ),
        losses=dict(
            lsh=[
                dict(
                    type='LSHLoss',
                    num_hashes=32 * 64,
                    bias='median',
                    loss_weight=6,
                )
            ],
            l2=[dict(type='FeatureL2Loss', loss_weight=6)],
        ),
    ),
)
