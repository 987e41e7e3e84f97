"""LSHL2 on the class tower: r101 -> r50."""

_base_ = 'retinanet_r50.py'
custom_imports = dict(imports=['lshfm_mm'])

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/retinanet_r101.py'),
    teacher_ckpt='work_dirs/voc/retinanet_r101.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(cls='bbox_head.retina_cls'),
        losses=dict(
            cls=[
                dict(type='LSHLoss', num_hashes=4096, loss_weight=7),
                dict(type='FeatureL2Loss', loss_weight=7),
            ]
        ),
    ),
)
