"""LSH alone under bfloat16 autocast."""

_base_ = 'lshl2_cls_retinanet_r34_retinanet_r18_shapes.py'

optim_wrapper = dict(type='mmrazor.BFloat16OptimWrapper')
model = dict(
    teacher_channels_last=True,  # as its student is by the wrapper
    distiller=dict(active=['lsh']),
)
