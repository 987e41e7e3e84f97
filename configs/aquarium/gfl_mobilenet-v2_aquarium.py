"""The teacher: a MobileNetV2 that has seen ImageNet."""

_base_ = ['gfl_r18-w16_aquarium.py', '../_base_/mobilenet-v2.py']

model = _base_.mobilenet_v2
optim_wrapper = dict(optimizer=dict(lr=0.0004))  # a pretrained backbone

max_epochs = 16
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_epochs
