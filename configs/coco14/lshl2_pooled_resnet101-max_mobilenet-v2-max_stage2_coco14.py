"""Stage 2: resnet101-max -> mobilenet-v2-max."""

_base_ = 'lshl2_pooled_resnet101-max_mobilenet-v2-max_coco14.py'

load_from = 'work_dirs/lshl2_pooled_resnet101-max_mobilenet-v2-max_stage1_coco14/epoch_60.pth'  # noqa: E501
