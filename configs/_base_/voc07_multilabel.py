"""VOC07, all classes of an image, as in the paper: 60 epochs of 16 images."""

_base_ = [
    'mmpretrain::_base_/datasets/voc_bs16.py',
    'mmpretrain::_base_/default_runtime.py',
]

data_root = 'data/VOCdevkit/VOC2007/'
_load = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(448, 448)),
]
train_pipeline = [
    *_load,
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type='PackInputs'),
]
test_pipeline = [*_load, _base_.test_pipeline[-1]]
train_dataloader = dict(
    dataset=dict(data_root=data_root, pipeline=train_pipeline)
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, pipeline=test_pipeline)
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='VOCAveragePrecision'),
    dict(type='VOCMultiLabelMetric', thr=0.5),
    dict(type='VOCMultiLabelMetric', thr=0.5, average='micro'),
]
test_evaluator = val_evaluator

max_epochs = 60
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    begin=0,
    end=max_epochs,
    convert_to_iter_based=True,
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.00001),
)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
