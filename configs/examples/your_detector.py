"""Distil a detector that you have a config for: these lines are all."""

# fmt: off
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'  # your config
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)
model = dict(_delete_=True, _scope_='mmrazor', type='RoIMimicDistill',
    architecture=_base_.model, inherit=True,
    teacher=dict(cfg_path='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'),
    teacher_ckpt='teacher.pth',
    distiller=dict(type='LSHFMDistiller',
        taps=dict(roi='roi_head.bbox_head.fc_cls'),
        losses=dict(roi=[dict(type='LSHLoss', loss_weight=4),
            dict(type='RelativeL2Loss', loss_weight=4)])))
