"""The backbone of the teacher alone, as ImageNet left it."""

_base_ = 'mobilenet-v2_clothing.py'

model = dict(head=None)
