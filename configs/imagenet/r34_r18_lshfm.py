"""Correct-only LSHL2: r34 -> r18."""

_base_ = 'r18.py'
custom_imports = dict(imports=['lshfm_mm'])
custom_hooks = [dict(type='AverageCheckpointsHook', num_epochs=10)]

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/r34.py'),
    teacher_ckpt='https://download.openmmlab.com/mmclassification/v0/resnet/resnet34_8xb32_in1k_20210831-f257d4e6.pth',  # noqa: E501
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(pooled=dict(layer='head.fc', weights='correct')),
        losses=dict(
            pooled=[
                dict(type='LSHLoss', num_hashes=2048, std=0.06, loss_weight=5),
                dict(type='FeatureL2Loss', loss_weight=5),
            ]
        ),
    ),
)
