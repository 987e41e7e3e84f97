"""Stage 1, without labels: resnet101 -> resnet50."""

_base_ = 'lshl2_pooled_resnet101_resnet50_coco14.py'

model = dict(
    calculate_student_loss=False,
    student_trainable=['neck'],
    distiller=dict(
        losses=dict(
            lsh=[dict(type='LSHLoss', num_hashes=2048, bias='median')],
            l2=[dict(type='FeatureL2Loss')],
        )
    ),
)
# Its class layer is random.
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
