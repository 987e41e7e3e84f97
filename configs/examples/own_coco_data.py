"""Your own data in COCO's format; the teacher may know other classes."""

_base_ = (
    'lshfm_mm::distill/'
    'recommended_roi-fpn_faster-rcnn_r101_faster-rcnn_r50_1x_coco.py'
)

data_root = 'data/mine/'  # holds train.json, val.json, train/ and val/
meta = dict(classes=('cat', 'dog', 'bird'))  # as the JSON files name them
train = dict(data_root=data_root, ann_file='train.json', metainfo=meta)
val = dict(data_root=data_root, ann_file='val.json', metainfo=meta)
train_dataloader = dict(dataset=dict(data_prefix=dict(img='train/'), **train))
val_dataloader = dict(dataset=dict(data_prefix=dict(img='val/'), **val))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'val.json')
test_evaluator = val_evaluator
del meta, train, val

# Only features are mimicked, so the teacher may be the one of the model zoo,
# with its 80 classes: the student inherits all that agrees in shape. Have you
# 80 other classes? Then set inherit=False. One that you trained on your data:
# teacher=dict(cfg_path='teacher.py'), teacher_ckpt='teacher.pth'.
model = dict(architecture=dict(roi_head=dict(bbox_head=dict(num_classes=3))))
# The rate is that of 8 GPUs with 2 images each: train with --auto-scale-lr.
