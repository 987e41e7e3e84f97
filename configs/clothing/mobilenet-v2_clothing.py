"""The teacher: a MobileNetV2 that has seen ImageNet.

``python -m lshfm_mm get_weights`` writes the file that we took. mmpretrain's
own weights are mobilenet_v2/
mobilenet_v2_batch256_imagenet_20200708-3b2dc3af.pth in
https://download.openmmlab.com/mmclassification/v0/.
"""

_base_ = 'resnet18-w16_clothing.py'

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

max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_epochs
