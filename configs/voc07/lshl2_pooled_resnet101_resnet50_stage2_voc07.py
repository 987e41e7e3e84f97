"""Stage 2: resnet101 -> resnet50."""

_base_ = 'lshl2_pooled_resnet101_resnet50_voc07.py'

load_from = (
    'work_dirs/lshl2_pooled_resnet101_resnet50_stage1_voc07/epoch_60.pth'
)
