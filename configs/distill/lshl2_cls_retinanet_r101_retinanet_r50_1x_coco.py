"""LSHL2 on the class tower of RetinaNet, R101 -> R50, the paper's weights."""

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py'),
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r101_fpn_2x_coco/retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth',  # noqa: E501
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(lsh='bbox_head.retina_cls', l2='bbox_head.retina_cls'),
        losses=dict(
            lsh=[dict(type='LSHLoss', num_hashes=4096, loss_weight=7)],
            l2=[dict(type='FeatureL2Loss', loss_weight=7)],
        ),
    ),
)
