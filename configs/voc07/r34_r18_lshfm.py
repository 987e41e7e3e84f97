"""Stage 2, LSHL2: r34 -> r18."""

_base_ = 'r18.py'
custom_imports = dict(imports=['lshfm_mm'])

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
    teacher=dict(cfg_path='{{ fileDirname }}/r34.py'),
    teacher_ckpt='work_dirs/voc07/r34.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(pooled='head.fc'),
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=2048,
                    bias='median',
                    loss_weight=0.5,
                ),
                dict(type='FeatureL2Loss', loss_weight=0.5),
            ]
        ),
    ),
)
custom_hooks = [dict(type='LSHCalibrationHook', num_batches=None)]
load_from = 'work_dirs/voc07/r34_r18_stage1/epoch_60.pth'
