"""Stage 2: resnet34 -> resnet18."""

_base_ = 'lshl2_pooled_resnet34_resnet18_voc07.py'

load_from = (
    'work_dirs/lshl2_pooled_resnet34_resnet18_stage1_voc07/epoch_60.pth'
)
