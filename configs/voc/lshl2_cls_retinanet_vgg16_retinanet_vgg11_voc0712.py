"""LSHL2 on the class tower: vgg16 -> vgg11."""

_base_ = 'retinanet_vgg11_voc0712.py'
custom_imports = dict(
    imports=['lshfm_mm', 'mmpretrain.models'], allow_failed_imports=False
)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/retinanet_vgg16_voc0712.py'),
    teacher_ckpt='work_dirs/retinanet_vgg16_voc0712.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(lsh='bbox_head.retina_cls', l2='bbox_head.retina_cls'),
        losses=dict(
            lsh=[dict(type='LSHLoss', num_hashes=4096, loss_weight=8)],
            l2=[dict(type='FeatureL2Loss', loss_weight=8)],
        ),
    ),
)
