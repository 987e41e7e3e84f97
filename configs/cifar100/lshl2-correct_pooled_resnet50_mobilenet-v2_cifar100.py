"""Correct-only LSHL2: resnet50 -> mobilenet-v2."""

_base_ = 'mobilenet-v2_cifar100.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)
custom_hooks = [
    dict(type='LSHCalibrationHook', num_batches=None),
    dict(type='AverageCheckpointsHook', num_epochs=10),
]

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=dict(
        _base_.model,
        # An embedding into the teacher's width, in the student's own path.
        neck=dict(
            type='LinearNeck',
            in_channels=1280,
            out_channels=2048,
            gap_dim=2,
            norm_cfg=None,
        ),
        head=dict(_base_.model.head, in_channels=2048),
    ),
    teacher=dict(cfg_path='{{ fileDirname }}/resnet50_cifar100.py'),
    teacher_ckpt='work_dirs/resnet50_cifar100.pth',
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
                    num_hashes=32 * 2048,
                    bias='median',
                    loss_weight=6,
                )
            ],
            l2=[dict(type='FeatureL2Loss', loss_weight=6)],
        ),
    ),
)
