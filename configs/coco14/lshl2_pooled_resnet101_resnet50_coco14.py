"""LSHL2 in one stage: resnet101 -> resnet50."""

_base_ = 'resnet50_coco14.py'

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
    teacher=dict(cfg_path='{{ fileDirname }}/resnet101_coco14.py'),
    teacher_ckpt='work_dirs/resnet101_coco14.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(lsh='head.fc', l2='head.fc'),
        losses=dict(
            lsh=[
                dict(
                    type='LSHLoss',
                    num_hashes=2048,
                    bias='median',
                    loss_weight=3,
                )
            ],
            l2=[dict(type='FeatureL2Loss', loss_weight=3)],
        ),
    ),
)
custom_hooks = [dict(type='LSHCalibrationHook', num_batches=None)]
