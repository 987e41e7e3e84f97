"""Your own data in the format of PASCAL VOC: an XML file to an image."""

_base_ = (
    'lshfm_mm::distill/'
    'recommended_roi-fpn_faster-rcnn_r101_faster-rcnn_r50_1x_coco.py'
)

own = dict(
    _delete_=True,
    type='VOCDataset',
    data_root='data/mine_voc/',  # holds JPEGImages/ and Annotations/
    data_prefix=dict(sub_data_root=''),
    metainfo=dict(classes=('cat', 'dog', 'bird')),
)
train = dict(ann_file='train.txt', pipeline=_base_.train_pipeline)
val = dict(ann_file='val.txt', pipeline=_base_.test_pipeline, test_mode=True)
train_dataloader = dict(dataset=dict(**own, **train))
val_dataloader = dict(dataset=dict(**own, **val))  # a name to a line, no .jpg
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='VOCMetric', eval_mode='area')
test_evaluator = val_evaluator
del own, train, val
model = dict(architecture=dict(roi_head=dict(bbox_head=dict(num_classes=3))))
