"""The student alone, trained on as long as stage 2: a fair comparison."""

_base_ = 'resnet18-w4_shapes-single.py'
load_from = 'work_dirs/shapes/single_student.pth'
