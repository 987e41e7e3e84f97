"""LSH alone on all images: r34 -> r18."""

_base_ = 'r34_r18_lshl2.py'

model = dict(
    distiller=dict(
        losses=dict(
            pooled=[
                dict(type='LSHLoss', num_hashes=2048, std=0.06, loss_weight=5)
            ]
        )
    )
)
