"""RetinaNet VGG16 with FPN, the teacher."""

_base_ = 'retinanet_vgg11_voc0712.py'

model = dict(
    backbone=dict(
        depth=16,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmclassification/v0/vgg/vgg16_batch256_imagenet_20210208-db26f1a5.pth'  # noqa: E501
        ),
    )
)
