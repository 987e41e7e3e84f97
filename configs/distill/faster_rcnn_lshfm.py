"""LSHL2 on the RoIs of Faster R-CNN, COCO, R101 -> R50, the paper's weights.

``--cfg-options model.distiller.active="[lsh]"`` is LSH alone, ``"[l2]"`` L2
alone, and ``"[lsh,l2,fpn]"`` mimics the FPN, too.
"""

_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='RoIMimicDistill',
    architecture=_base_.model,
    teacher=dict(
        cfg_path='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'
    ),
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r101_fpn_2x_coco/faster_rcnn_r101_fpn_2x_coco_bbox_mAP-0.398_20200504_210455-1d2dac9c.pth',  # noqa: E501
    distiller=dict(
        type='LSHFMDistiller',
        active=['lsh', 'l2'],
        taps=dict(
            lsh='roi_head.bbox_head.fc_cls',
            l2='roi_head.bbox_head.fc_cls',
            fpn=dict(layer='neck', record='output'),
        ),
        losses=dict(
            lsh=[dict(type='LSHLoss', loss_weight=7)],
            l2=[dict(type='FeatureL2Loss', loss_weight=7)],
            fpn=[dict(type='PKDLoss', loss_weight=6)],
        ),
    ),
)
