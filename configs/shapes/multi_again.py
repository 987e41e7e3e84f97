"""The student alone, trained on as long as stage 2: a fair comparison."""

_base_ = 'multi_student.py'
load_from = 'work_dirs/shapes/multi_student.pth'
