"""Shapes that are easy to see: a teacher learns them in minutes."""

_base_ = 'shapes.py'

data_root = 'data/easy_shapes/'
data_help = (
    'python -m lshfm_mm make_shapes data/easy_shapes --num-train 640 '
    '--size 96 --easy'
)
train_pipeline = _base_.train_dataloader.dataset.pipeline
val_pipeline = _base_.val_dataloader.dataset.pipeline
train_pipeline[2].scale = val_pipeline[2].scale = (96, 96)
train_dataloader = dict(
    batch_size=4,  # many steps
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=val_pipeline))
test_dataloader = dict(
    dataset=dict(data_root=data_root, pipeline=val_pipeline)
)
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator
