"""Stage 2: all of the student learns, from stage 1; LSHL2."""

_base_ = 'resnet18-w4_shapes-multi.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)
custom_hooks = [dict(type='LSHCalibrationHook', num_batches=None)]
load_from = 'work_dirs/shapes/multi_stage1/epoch_3.pth'

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=dict(
        _base_.model,
        # The student's width -> the teacher's; export folds it into the
        # classifier.
        neck=dict(
            type='LinearNeck',
            in_channels=32,
            out_channels=128,
            gap_dim=2,
            norm_cfg=None,
        ),
        head=dict(_base_.model.head, in_channels=128),
    ),
    teacher=dict(cfg_path='{{ fileDirname }}/resnet18-w16_shapes-multi.py'),
    teacher_ckpt='work_dirs/shapes/multi_teacher.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(lsh='head.fc', l2='head.fc'),
        losses=dict(
            lsh=[
                dict(
                    type='LSHLoss',
                    num_hashes=2048,
                    bias='median',
                    loss_weight=6,
                )
            ],
            l2=[dict(type='FeatureL2Loss', loss_weight=6)],
        ),
    ),
)
