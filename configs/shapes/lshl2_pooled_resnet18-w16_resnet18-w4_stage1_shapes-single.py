"""Stage 1: the embedding alone learns; the backbone is of the student alone.

No labels are needed: all images count.
"""

_base_ = (
    'lshl2-correct_pooled_resnet18-w16_resnet18-w4_stage2_shapes-single.py'
)
load_from = None
# Its class layer is random.
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None

max_epochs = 3
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='ConstantLR', factor=1)]
model = dict(
    architecture=dict(
        backbone=dict(
            init_cfg=dict(
                type='Pretrained',
                checkpoint='work_dirs/shapes/single_student.pth',
                prefix='backbone',
            )
        )
    ),
    calculate_student_loss=False,
    student_trainable=['neck'],
    distiller=dict(
        taps=dict(lsh=dict(weights='uniform'), l2=dict(weights='uniform'))
    ),
)
