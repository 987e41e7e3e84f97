"""The recommended recipe of GFL, on photographs of blood."""

_base_ = 'gfl_r18-w16_bccd.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    inherit=True,
    teacher=dict(cfg_path='{{ fileDirname }}/gfl_mobilenet-v2_bccd.py'),
    teacher_ckpt='work_dirs/gfl_mobilenet-v2_bccd/epoch_20.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(fpn=dict(layer='neck', record='output')),
        losses=dict(fpn=[dict(type='ChannelWiseDivergence', loss_weight=160)]),
    ),
)
