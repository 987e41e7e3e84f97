"""LSH alone on the class tower: r101 -> r50."""

_base_ = 'retinanet_r50_lshfm.py'

model = dict(
    distiller=dict(
        losses=dict(cls=[dict(type='LSHLoss', num_hashes=4096, loss_weight=7)])
    )
)
