"""Data, schedule and runtime of photographs of blood cells.

Shenggan's BCCD_Dataset, MIT: 204 photographs to train on, 87 to choose on, 72
to report; three classes of cells.
"""

_base_ = 'aquarium.py'

data_root = 'data/bccd/'
data_help = 'python -m lshfm_mm get_photographs bccd data/bccd'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))

_photographs = dict(data_root=data_root, metainfo=metainfo)
train_dataloader = dict(dataset=_photographs)
val_dataloader = dict(dataset=_photographs)
test_dataloader = dict(dataset=_photographs)
val_evaluator = dict(ann_file=data_root + 'val.json')
test_evaluator = dict(ann_file=data_root + 'test.json')

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_epochs
