"""LSHL2 in one stage: resnet101-max -> mobilenet-v2-max."""

_base_ = 'lshl2_pooled_resnet101_mobilenet-v2_coco14.py'

model = dict(
    architecture=dict(
        neck=dict(
            _delete_=True,
            type='GlobalMaxPooling',
            in_channels=1280,
            out_channels=2048,
        )
    ),
    teacher=dict(cfg_path='{{ fileDirname }}/resnet101-max_coco14.py'),
    teacher_ckpt='work_dirs/resnet101-max_coco14.pth',
)
