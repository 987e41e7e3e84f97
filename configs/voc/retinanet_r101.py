"""RetinaNet R101, the teacher."""

_base_ = 'retinanet_r50.py'

model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')
    )
)
