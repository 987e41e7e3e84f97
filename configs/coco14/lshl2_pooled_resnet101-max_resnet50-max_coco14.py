"""LSHL2 in one stage: resnet101-max -> resnet50-max."""

_base_ = 'lshl2_pooled_resnet101_resnet50_coco14.py'

model = dict(
    architecture=dict(
        neck=dict(
            _delete_=True,
            type='GlobalMaxPooling',
            in_channels=2048,
            out_channels=2048,
        )
    ),
    teacher=dict(cfg_path='{{ fileDirname }}/resnet101-max_coco14.py'),
    teacher_ckpt='work_dirs/resnet101-max_coco14.pth',
)
