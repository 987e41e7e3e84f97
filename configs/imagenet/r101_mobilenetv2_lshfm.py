"""Correct-only LSHL2: r101 -> mobilenetv2."""

_base_ = 'mobilenetv2.py'
custom_imports = dict(imports=['lshfm_mm'])
custom_hooks = [dict(type='AverageCheckpointsHook', num_epochs=10)]

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
    teacher_ckpt='https://download.openmmlab.com/mmclassification/v0/resnet/resnet101_8xb32_in1k_20210831-539c63f8.pth',  # noqa: E501
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(pooled=dict(layer='head.fc', weights='correct')),
        losses=dict(
            pooled=[
                dict(type='LSHLoss', num_hashes=2048, std=0.03, loss_weight=5),
                dict(type='FeatureL2Loss', loss_weight=5),
            ]
        ),
    ),
)
