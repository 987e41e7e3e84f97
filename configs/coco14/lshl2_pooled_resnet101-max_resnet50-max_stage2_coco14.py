"""Stage 2: resnet101-max -> resnet50-max."""

_base_ = 'lshl2_pooled_resnet101-max_resnet50-max_coco14.py'

load_from = 'work_dirs/lshl2_pooled_resnet101-max_resnet50-max_stage1_coco14/epoch_60.pth'  # noqa: E501
