"""Two teachers: Faster R-CNN teaches the RoIs, RTMDet the neck."""

# fmt: off
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)
url = 'https://download.openmmlab.com/mmdetection/v'
model = dict(_delete_=True, _scope_='mmrazor', type='RoIMimicDistill',
    architecture=_base_.model,
    teachers=dict(
        rcnn=dict(
            model='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py',
            ckpt=url + '2.0/faster_rcnn/faster_rcnn_r101_fpn_2x_coco/faster_rcnn_r101_fpn_2x_coco_bbox_mAP-0.398_20200504_210455-1d2dac9c.pth'),  # noqa: E501
        rtm=dict(  # it sees images in its own normalisation
            model='mmdet::rtmdet/rtmdet_l_8xb32-300e_coco.py',
            ckpt=url + '3.0/rtmdet/rtmdet_l_8xb32-300e_coco/rtmdet_l_8xb32-300e_coco_20220719_112030-5a0be7c4.pth',  # noqa: E501
            precision='bfloat16')),
    inherit='rcnn',
    distiller=dict(type='LSHFMDistiller',
        # Before the colon stands whose layer it is.
        taps=dict(
            roi=dict(student='roi_head.bbox_head.fc_cls', teacher='rcnn:roi_head.bbox_head.fc_cls'),  # noqa: E501
            neck=dict(student='neck', teacher='rtm:neck', record='output')),
        losses=dict(
            roi=[dict(type='LSHLoss', loss_weight=4), dict(type='RelativeL2Loss', loss_weight=4)],  # noqa: E501
            neck=[dict(type='RelativeL2Loss', loss_weight=1)])))
