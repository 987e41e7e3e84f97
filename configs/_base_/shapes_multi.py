"""Shapes, several to an image: the detection images, for mmpretrain."""

_base_ = 'shapes_single.py'

data_root = 'data/shapes/'
data_help = (
    'python tools/make_shapes.py data/shapes --num-train 640 --size 128'
)
data_preprocessor = dict(to_onehot=True)
_load = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(96, 96)),
]
train_dataloader = dict(
    dataset=dict(
        type='MultiLabelDataset',
        data_root=data_root,
        pipeline=[
            *_load,
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ],
    )
)
val_dataloader = dict(
    dataset=dict(
        type='MultiLabelDataset',
        data_root=data_root,
        pipeline=[*_load, dict(type='PackInputs')],
    )
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='AveragePrecision'),
    dict(type='MultiLabelMetric', thr=0.5),
    dict(type='MultiLabelMetric', thr=0.5, average='micro'),
]
test_evaluator = val_evaluator
