"""Stage 2, LSHL2: r101 -> mobilenetv2."""

_base_ = 'mobilenetv2.py'
custom_imports = dict(imports=['lshfm_mm'])

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=dict(
        _base_.model,
        neck=dict(
            type='LinearNeck',
            in_channels=1280,
            out_channels=2048,
            gap_dim=2,
            norm_cfg=None,
        ),
        head=dict(_base_.model.head, in_channels=2048),
    ),
    teacher=dict(cfg_path='{{ fileDirname }}/r101.py'),
    teacher_ckpt='work_dirs/voc07/r101.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(pooled='head.fc'),
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=8192,
                    bias='median',
                    loss_weight=0.5,
                ),
                dict(type='FeatureL2Loss', loss_weight=0.5),
            ]
        ),
    ),
)
custom_hooks = [dict(type='LSHCalibrationHook', num_batches=None)]
load_from = 'work_dirs/voc07/r101_mobilenetv2_stage1/epoch_60.pth'
