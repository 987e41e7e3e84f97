"""The recommended recipe of classifiers, on photographs."""

_base_ = 'resnet18-w16_clothing.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

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
            in_channels=128,
            out_channels=1280,
            gap_dim=2,
            norm_cfg=None,
        ),
        head=dict(_base_.model.head, in_channels=1280),
    ),
    inherit=True,
    teacher=dict(cfg_path='{{ fileDirname }}/mobilenet-v2_clothing.py'),
    teacher_ckpt='work_dirs/mobilenet-v2_clothing/epoch_8.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(pooled='head.fc'),
        losses=dict(
            pooled=[
                dict(type='LSHLoss', loss_weight=6),
                dict(type='RelativeL2Loss', loss_weight=6),
            ]
        ),
    ),
)
