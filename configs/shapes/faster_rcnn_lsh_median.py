"""LSH on RoIs, hyperplanes through the median of the teacher's features."""

_base_ = 'faster_rcnn_lsh.py'

model = dict(
    distiller=dict(
        losses=dict(
            roi=[dict(type='LSHLoss', bias='median', loss_weight=7)],
        ),
    )
)
custom_hooks = [dict(type='LSHCalibrationHook')]
