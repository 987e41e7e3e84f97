"""What makes a small detector a teacher: a MobileNetV2 that knows ImageNet.

``python -m lshfm_mm get_weights`` writes the file that we took. mmdet's own
weights are 'open-mmlab://mmdet/mobilenet_v2', without a prefix.
"""

mobilenet_v2 = dict(
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
