"""The teacher: a MobileNetV2 that has seen ImageNet."""

_base_ = ['retinanet_r18-w16_bccd.py', '../_base_/mobilenet-v2.py']

model = _base_.mobilenet_v2
optim_wrapper = dict(optimizer=dict(lr=0.0004))  # a pretrained backbone
