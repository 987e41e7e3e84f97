"""LSHL2 on the class tower: vgg16 -> vgg11."""

_base_ = 'retinanet_vgg11.py'
custom_imports = dict(imports=['lshfm_mm', 'mmpretrain.models'])

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/retinanet_vgg16.py'),
    teacher_ckpt='work_dirs/voc/retinanet_vgg16.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(cls='bbox_head.retina_cls'),
        losses=dict(
            cls=[
                dict(type='LSHLoss', num_hashes=4096, loss_weight=8),
                dict(type='FeatureL2Loss', loss_weight=8),
            ]
        ),
    ),
)
