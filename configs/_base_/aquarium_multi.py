"""The aquarium photographs with all their classes: several labels."""

_base_ = 'shapes_multi.py'

data_root = 'data/aquarium/'
data_help = 'python -m lshfm_mm get_photographs aquarium data/aquarium'
data_preprocessor = dict(num_classes=7)
train_pipeline = _base_.train_dataloader.dataset.pipeline
val_pipeline = _base_.val_dataloader.dataset.pipeline
train_pipeline[1].scale = val_pipeline[1].scale = (96, 96)
_photographs = dict(data_root=data_root, data_prefix='')
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        **_photographs,
        ann_file='multilabel_train.json',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        **_photographs,
        ann_file='multilabel_val.json',
        pipeline=val_pipeline,
    ),
)
test_dataloader = dict(
    dataset=dict(
        **_photographs,
        ann_file='multilabel_test.json',
        pipeline=val_pipeline,
    ),
)

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_epochs
