"""LSHL2 in one stage: resnet34 -> resnet18."""

_base_ = 'resnet18_voc07.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=dict(
        _base_.model,
        neck=dict(
            type='LinearNeck',
            in_channels=512,
            out_channels=512,
            gap_dim=2,
            norm_cfg=None,
        ),
    ),
    teacher=dict(cfg_path='{{ fileDirname }}/resnet34_voc07.py'),
    teacher_ckpt='work_dirs/resnet34_voc07.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(lsh='head.fc', l2='head.fc'),
        losses=dict(
            lsh=[
                dict(
                    type='LSHLoss',
                    num_hashes=2048,
                    bias='median',
                    loss_weight=0.5,
                )
            ],
            l2=[dict(type='FeatureL2Loss', loss_weight=0.5)],
        ),
    ),
)
custom_hooks = [dict(type='LSHCalibrationHook', num_batches=None)]
