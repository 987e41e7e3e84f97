"""Data, schedule and runtime of the aquarium photographs.

Aquarium Combined, from Roboflow, CC BY 4.0: 441 photographs to train on, 127
to choose on, 63 to report; seven classes of animals.
"""

_base_ = 'shapes.py'

data_root = 'data/aquarium/'
data_help = 'python -m lshfm_mm get_photographs aquarium data/aquarium'
metainfo = dict(
    classes=(
        'fish',
        'jellyfish',
        'penguin',
        'puffin',
        'shark',
        'starfish',
        'stingray',
    )
)

_size = (224, 224)
train_pipeline = _base_.train_dataloader.dataset.pipeline
val_pipeline = _base_.val_dataloader.dataset.pipeline
train_pipeline[2].scale = val_pipeline[2].scale = _size
_photographs = dict(
    data_root=data_root, data_prefix=dict(img='images/'), metainfo=metainfo
)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        **_photographs,
        ann_file='train.json',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        **_photographs,
        ann_file='val.json',
        pipeline=val_pipeline,
    ),
)
val_evaluator = dict(ann_file=data_root + 'val.json')
test_dataloader = dict(
    dataset=dict(
        **_photographs,
        ann_file='test.json',
        pipeline=val_pipeline,
    ),
)
test_evaluator = dict(ann_file=data_root + 'test.json')

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_epochs
