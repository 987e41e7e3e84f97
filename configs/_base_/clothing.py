"""Data, schedule and runtime of the clothing photographs; mmpretrain.

clothing-dataset-small, by Alexey Grigorev and others, CC0: 3,059 photographs
to train on, 341 to choose on, 372 to report; ten classes.
"""

_base_ = 'shapes_single.py'

data_root = 'data/clothing/'
data_help = 'python -m lshfm_mm get_photographs clothing data/clothing'
data_preprocessor = dict(num_classes=10)
_val_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=72, edge='short'),
    dict(type='CenterCrop', crop_size=64),
    dict(type='PackInputs'),
]
_photographs = dict(_delete_=True, type='CustomDataset', data_root=data_root)
train_dataloader = dict(
    dataset=dict(
        **_photographs,
        ann_file='train.txt',
        data_prefix='train',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='RandomResizedCrop', scale=64, crop_ratio_range=(0.3, 1.0)
            ),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        **_photographs,
        ann_file='val.txt',
        data_prefix='val',
        pipeline=_val_pipeline,
    ),
)
test_dataloader = dict(
    dataset=dict(
        **_photographs,
        ann_file='test.txt',
        data_prefix='test',
        pipeline=_val_pipeline,
    ),
)

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_epochs
