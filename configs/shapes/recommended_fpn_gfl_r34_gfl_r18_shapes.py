"""CWD on the FPN, into an inherited head: best for dense heads so far."""

_base_ = 'gfl_r18_shapes.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    inherit=True,
    teacher=dict(cfg_path='{{ fileDirname }}/gfl_r34_shapes.py'),
    teacher_ckpt='work_dirs/shapes/gfl_teacher.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(fpn=dict(layer='neck', record='output')),
        losses=dict(fpn=[dict(type='ChannelWiseDivergence', loss_weight=160)]),
    ),
)
