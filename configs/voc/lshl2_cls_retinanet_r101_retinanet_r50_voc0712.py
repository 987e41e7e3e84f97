"""LSHL2 on the class tower: r101 -> r50."""

_base_ = 'retinanet_r50_voc0712.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/retinanet_r101_voc0712.py'),
    teacher_ckpt='work_dirs/retinanet_r101_voc0712.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(lsh='bbox_head.retina_cls', l2='bbox_head.retina_cls'),
        losses=dict(
            lsh=[dict(type='LSHLoss', num_hashes=4096, loss_weight=7)],
            l2=[dict(type='FeatureL2Loss', loss_weight=7)],
        ),
    ),
)
