"""The teacher: a MobileNetV2 that has seen ImageNet, as Faster R-CNN's."""

_base_ = 'gfl_r18-w16_bccd.py'

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
