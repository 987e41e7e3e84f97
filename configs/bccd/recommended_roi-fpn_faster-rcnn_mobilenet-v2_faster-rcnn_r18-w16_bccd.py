"""The recommended recipe of Faster R-CNN, on photographs of blood."""

_base_ = 'faster-rcnn_r18-w16_bccd.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='RoIMimicDistill',
    architecture=_base_.model,
    inherit=True,
    teacher=dict(
        cfg_path='{{ fileDirname }}/faster-rcnn_mobilenet-v2_bccd.py'
    ),
    teacher_ckpt='work_dirs/faster-rcnn_mobilenet-v2_bccd/epoch_20.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(
            roi='roi_head.bbox_head.shared_fcs.1',
            fpn=dict(layer='neck', record='output', weights='balanced'),
        ),
        losses=dict(
            roi=[
                dict(type='LSHLoss', loss_weight=4),
                dict(type='RelativeL2Loss', loss_weight=4),
            ],
            fpn=[dict(type='RelativeL2Loss')],
        ),
    ),
)
