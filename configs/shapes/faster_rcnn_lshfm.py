"""LSHL2 on RoIs with the paper's weights."""

_base_ = 'faster_rcnn_student.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='RoIMimicDistill',
    architecture=_base_.model,
    teacher=dict(cfg_path='{{ fileDirname }}/faster_rcnn_teacher.py'),
    teacher_ckpt='work_dirs/shapes/teacher.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(roi='roi_head.bbox_head.fc_cls'),
        losses=dict(
            roi=[
                dict(type='LSHLoss', loss_weight=7),
                dict(
                    type='L2Loss',
                    normalize=False,
                    div_element=True,
                    loss_weight=7,
                ),
            ]
        ),
    ),
)
