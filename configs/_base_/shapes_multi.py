"""The images of shapes with all their classes: several labels; mmpretrain."""

_base_ = 'shapes_single.py'

data_preprocessor = dict(to_onehot=True)
_load = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64)),
]
train_dataloader = dict(
    dataset=dict(
        type='MultiLabelDataset',
        ann_file='annotations/train_labels.json',
        data_prefix='train/',
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
        ann_file='annotations/val_labels.json',
        data_prefix='val/',
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
