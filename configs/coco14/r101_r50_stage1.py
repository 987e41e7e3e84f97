"""Stage 1, without labels: r101 -> r50."""

_base_ = 'r101_r50_lshfm.py'

model = dict(
    calculate_student_loss=False,
    student_trainable=['neck'],
    distiller=dict(
        losses=dict(
            pooled=[
                dict(type='LSHLoss', num_hashes=2048, bias='median'),
                dict(type='FeatureL2Loss'),
            ]
        )
    ),
)
load_from = None
# Its class layer is random.
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
