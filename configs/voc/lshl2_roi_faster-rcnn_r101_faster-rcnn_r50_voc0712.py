"""LSHL2 on RoIs: r101 -> r50."""

_base_ = 'faster-rcnn_r50_voc0712.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='RoIMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/faster-rcnn_r101_voc0712.py'),
    teacher_ckpt='work_dirs/faster-rcnn_r101_voc0712.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(
            lsh='roi_head.bbox_head.fc_cls', l2='roi_head.bbox_head.fc_cls'
        ),
        losses=dict(
            lsh=[dict(type='LSHLoss', loss_weight=7)],
            l2=[dict(type='FeatureL2Loss', loss_weight=7)],
        ),
    ),
)
