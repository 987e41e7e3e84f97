"""The teacher: a MobileNetV2 that has seen ImageNet.

``python -m lshfm_mm get_weights`` writes the file that we took. mmdet's own
weights are 'open-mmlab://mmdet/mobilenet_v2', without a prefix.
"""

_base_ = 'faster-rcnn_r18-w16_aquarium.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='data/mobilenet_v2_imagenet.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=[24, 32, 96, 320]),
)
optim_wrapper = dict(optimizer=dict(lr=0.0004))  # a pretrained backbone

max_epochs = 16
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_epochs
