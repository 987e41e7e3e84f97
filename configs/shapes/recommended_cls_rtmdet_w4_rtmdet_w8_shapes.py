"""LSHL2 on the class tower of a head of its own width."""

_base_ = 'rtmdet_w8_shapes.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/rtmdet_w4_shapes.py'),
    teacher_ckpt='work_dirs/shapes/rtmdet_teacher.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(cls='bbox_head.rtm_cls'),
        connectors=dict(
            cls=dict(type='ConvConnector', in_channels=48, out_channels=64)
        ),
        losses=dict(
            cls=[
                dict(type='LSHLoss', num_hashes=256, loss_weight=4),
                dict(type='RelativeL2Loss', loss_weight=4),
            ]
        ),
    ),
)
