"""LSHL2 on the class tower of RetinaNet with the paper's weights."""

_base_ = 'retinanet_r18_shapes.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/retinanet_r34_shapes.py'),
    teacher_ckpt='work_dirs/shapes/retinanet_teacher.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(lsh='bbox_head.retina_cls', l2='bbox_head.retina_cls'),
        losses=dict(
            lsh=[dict(type='LSHLoss', num_hashes=1024, loss_weight=7)],
            l2=[dict(type='FeatureL2Loss', loss_weight=7)],
        ),
    ),
)
