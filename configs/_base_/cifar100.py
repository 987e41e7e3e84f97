"""CIFAR-100: data, classifier and schedule of the benchmark."""

_base_ = [
    'mmpretrain::_base_/datasets/cifar100_bs16.py',
    'mmpretrain::_base_/default_runtime.py',
]

data_root = 'data/cifar100'  # mmpretrain downloads what is not there
train_dataloader = dict(
    batch_size=64, persistent_workers=True, dataset=dict(data_root=data_root)
)
val_dataloader = dict(
    batch_size=64, persistent_workers=True, dataset=dict(data_root=data_root)
)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, 5))
test_evaluator = val_evaluator

# A network adds its backbone, the width of what that gives, and init_cfg=None
# where the classifier starts as torch's, not from a normal one of std 0.01.
model = dict(
    type='ImageClassifier',
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=100),
)

max_epochs = 240
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = dict(
    type='MultiStepLR',
    begin=0,
    end=max_epochs,
    by_epoch=True,
    milestones=[150, 180, 210],
    gamma=0.1,
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.0005),
)
auto_scale_lr = dict(enable=False, base_batch_size=64)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=10))
randomness = dict(seed=0)
