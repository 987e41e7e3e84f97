"""LSH alone under bfloat16 autocast."""

_base_ = 'retinanet_lsh.py'

optim_wrapper = dict(type='mmrazor.BFloat16OptimWrapper')
model = dict(teacher_channels_last=True)  # as its student is by the wrapper
