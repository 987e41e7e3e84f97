"""LSHL2 on RoIs: r101 -> r50."""

_base_ = 'faster_rcnn_r50.py'
custom_imports = dict(imports=['lshfm_mm'])

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='RoIMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/faster_rcnn_r101.py'),
    teacher_ckpt='work_dirs/voc/faster_rcnn_r101.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(roi='roi_head.bbox_head.fc_cls'),
        losses=dict(
            roi=[
                dict(type='LSHLoss', loss_weight=7),
                dict(type='FeatureL2Loss', loss_weight=7),
            ]
        ),
    ),
)
