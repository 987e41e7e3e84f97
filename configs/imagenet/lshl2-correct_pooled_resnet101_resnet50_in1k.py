"""Correct-only LSHL2: resnet101 -> resnet50."""

_base_ = 'resnet50_in1k.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)
custom_hooks = [dict(type='AverageCheckpointsHook', num_epochs=10)]

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/resnet101_in1k.py'),
    teacher_ckpt='https://download.openmmlab.com/mmclassification/v0/resnet/resnet101_8xb32_in1k_20210831-539c63f8.pth',  # noqa: E501
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(
            lsh=dict(layer='head.fc', weights='correct'),
            l2=dict(layer='head.fc', weights='correct'),
        ),
        losses=dict(
            lsh=[
                dict(type='LSHLoss', num_hashes=2048, std=0.03, loss_weight=5)
            ],
            l2=[dict(type='FeatureL2Loss', loss_weight=5)],
        ),
    ),
)
