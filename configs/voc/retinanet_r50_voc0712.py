"""RetinaNet R50 alone: the student of R101."""

_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', '../_base_/voc.py']

model = dict(bbox_head=dict(num_classes=20))
optim_wrapper = dict(optimizer=dict(lr=0.005))
