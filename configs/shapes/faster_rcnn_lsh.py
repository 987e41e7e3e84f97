"""LSH alone on RoIs."""

_base_ = 'faster_rcnn_lshfm.py'

model = dict(
    distiller=dict(
        losses=dict(roi=[dict(type='LSHLoss', loss_weight=7)]),
    )
)
