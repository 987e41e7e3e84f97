"""Stage 2: resnet101 -> mobilenet-v2."""

_base_ = 'lshl2_pooled_resnet101_mobilenet-v2_voc07.py'

load_from = (
    'work_dirs/lshl2_pooled_resnet101_mobilenet-v2_stage1_voc07/epoch_60.pth'
)
