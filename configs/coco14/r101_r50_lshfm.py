"""Stage 2, LSHL2: r101 -> r50."""

_base_ = 'r50.py'

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=dict(
        _base_.model,
        neck=dict(
            type='LinearNeck',
            in_channels=2048,
            out_channels=2048,
            gap_dim=2,
            norm_cfg=None,
        ),
    ),
    teacher=dict(cfg_path='{{ fileDirname }}/r101.py'),
    teacher_ckpt='work_dirs/coco14/r101.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(pooled='head.fc'),
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=2048,
                    bias='median',
                    loss_weight=3,
                ),
                dict(type='FeatureL2Loss', loss_weight=3),
            ]
        ),
    ),
)
custom_hooks = [dict(type='LSHCalibrationHook', num_batches=None)]
load_from = 'work_dirs/coco14/r101_r50_stage1/epoch_60.pth'
