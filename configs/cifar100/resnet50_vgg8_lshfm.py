"""Correct-only LSHL2: resnet50 -> vgg8."""

_base_ = 'vgg8.py'
custom_imports = dict(imports=['lshfm_mm'])
custom_hooks = [
    dict(type='LSHCalibrationHook', num_batches=None),
    dict(type='AverageCheckpointsHook', num_epochs=10),
]

# An embedding into the teacher's width, in the student's own path.
student = _base_.model
student.neck = dict(
    type='LinearNeck',
    in_channels=512,
    out_channels=2048,
    gap_dim=2,
    norm_cfg=None,
)
student.head.in_channels = 2048

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=student,
    teacher=dict(cfg_path='{{ fileDirname }}/resnet50.py'),
    teacher_ckpt='work_dirs/cifar100/resnet50.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(pooled=dict(layer='head.fc', weights='correct')),
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=32 * 2048,
                    bias='median',
                    loss_weight=6,
                ),
                dict(type='FeatureL2Loss', loss_weight=6),
            ]
        ),
    ),
)
