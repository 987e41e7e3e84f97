"""Stage 2, LSHL2: r101 -> r50, max pooling."""

_base_ = 'r101_r50_lshfm.py'

model = dict(
    architecture=dict(
        neck=dict(
            _delete_=True,
            type='GlobalMaxPooling',
            in_channels=2048,
            out_channels=2048,
        )
    ),
    teacher=dict(cfg_path='{{ fileDirname }}/r101_max.py'),
    teacher_ckpt='work_dirs/coco14/r101_max.pth',
)
load_from = 'work_dirs/coco14/r101_r50_max_stage1/epoch_60.pth'
