"""COCO14, all classes of an image, as in the paper: 60 epochs of 32 images."""

_base_ = 'voc07_multilabel.py'
custom_imports = dict(
    imports=['lshfm_mm.datasets.coco_multi_label'],
    allow_failed_imports=False,
)

dataset_type = 'CocoMultiLabel'
data_root = 'data/coco/'
data_preprocessor = dict(num_classes=80)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(512, 512)),
    dict(type='RandomCrop', crop_size=448),
    *_base_.train_pipeline[2:],
]
test_pipeline = [*_base_.test_pipeline[:2], dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        _delete_=True,
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train2014.json',
        data_prefix='train2014/',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=32,
    dataset=dict(
        _delete_=True,
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2014.json',
        data_prefix='val2014/',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='AveragePrecision'),
    dict(type='MultiLabelMetric', thr=0.5),
    dict(type='MultiLabelMetric', thr=0.5, average='micro'),
]
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(weight_decay=0.0001))
auto_scale_lr = dict(base_batch_size=32)
