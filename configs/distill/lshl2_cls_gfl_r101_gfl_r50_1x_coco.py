"""LSHL2 on the class tower of GFL, R101 -> R50, the paper's weights."""

_base_ = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py'),
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth',  # noqa: E501
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(lsh='bbox_head.gfl_cls', l2='bbox_head.gfl_cls'),
        losses=dict(
            lsh=[dict(type='LSHLoss', num_hashes=4096, loss_weight=7)],
            l2=[dict(type='FeatureL2Loss', loss_weight=7)],
        ),
    ),
)
