"""A small backbone learns from a pretrained one, without labels.

Its maps of strides 4 to 32 mimic those of a MobileNetV2 of ImageNet. Then a
detector with few photographs of its own starts from it.
"""

_base_ = 'resnet18-w16_clothing.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)


def _stage(student, teacher):
    return dict(
        student=f'backbone.layer{student}',
        teacher=f'backbone.layer{teacher}',
        record='output',
    )


def _width(student, teacher):
    return dict(
        type='ConvConnector', in_channels=student, out_channels=teacher
    )


_l2 = [dict(type='RelativeL2Loss')]
model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    calculate_student_loss=False,
    student_trainable=['backbone'],
    teacher=dict(
        cfg_path='{{ fileDirname }}/mobilenet-v2-headless_clothing.py'
    ),
    teacher_ckpt='data/mobilenet_v2_imagenet_mmpretrain.pth',
    distiller=dict(
        type='LSHFMDistiller',
        taps=dict(
            c2=_stage(1, 2), c3=_stage(2, 3), c4=_stage(3, 5), c5=_stage(4, 7)
        ),
        connectors=dict(
            c2=_width(16, 24),
            c3=_width(32, 32),
            c4=_width(64, 96),
            c5=_width(128, 320),
        ),
        losses=dict(c2=_l2, c3=_l2, c4=_l2, c5=_l2),
    ),
)
# Larger than to classify them, for maps of stride 32.
train_pipeline = _base_.train_dataloader.dataset.pipeline
train_pipeline[1].scale = 112
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
