"""RetinaNet VGG11 with FPN alone: the student of VGG16."""

_base_ = 'retinanet_r50_voc0712.py'
custom_imports = dict(
    imports=['mmpretrain.models'], allow_failed_imports=False
)

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VGG',
        depth=11,
        out_indices=(1, 2, 3, 4),  # after the pooling: strides 4 to 32
        frozen_stages=1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/vgg/vgg11_batch256_imagenet_20210208-4271cd6c.pth',  # noqa: E501
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=[128, 256, 512, 512]),
)
