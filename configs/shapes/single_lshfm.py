"""Stage 2: all of the student learns; LSHL2 on what the teacher gets right."""

_base_ = 'single_student.py'
custom_imports = dict(imports=['lshfm_mm'])
custom_hooks = [dict(type='LSHCalibrationHook', num_batches=None)]
load_from = 'work_dirs/shapes/single_stage1/epoch_3.pth'

# The student's width -> the teacher's; export folds it into the classifier.
student = _base_.model
student.neck = dict(
    type='LinearNeck',
    in_channels=32,
    out_channels=128,
    gap_dim=2,
    norm_cfg=None,
)
student.head.in_channels = 128
model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=student,
    teacher=dict(cfg_path='{{ fileDirname }}/single_teacher.py'),
    teacher_ckpt='work_dirs/shapes/single_teacher.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(pooled=dict(layer='head.fc', weights='correct')),
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=2048,
                    bias='median',
                    loss_weight=6,
                ),
                dict(type='FeatureL2Loss', loss_weight=6),
            ]
        ),
    ),
)
