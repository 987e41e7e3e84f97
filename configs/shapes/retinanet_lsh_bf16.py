"""LSH alone under bfloat16 autocast."""

_base_ = 'retinanet_lsh.py'

optim_wrapper = dict(type='mmrazor.BFloat16OptimWrapper')
