"""Stage 1: the embedding alone learns, without labels."""

_base_ = 'lshl2_pooled_resnet18-w16_resnet18-w4_stage2_shapes-multi.py'
load_from = None
# Its class layer is random.
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None

max_epochs = 3
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='ConstantLR', factor=1)]
model = dict(
    calculate_student_loss=False,
    student_trainable=['neck'],
)
