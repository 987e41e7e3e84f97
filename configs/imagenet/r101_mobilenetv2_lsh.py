"""LSH alone on all images: r101 -> mobilenetv2."""

_base_ = 'r101_mobilenetv2_lshl2.py'

model = dict(
    distiller=dict(
        losses=dict(
            pooled=[
                dict(type='LSHLoss', num_hashes=2048, std=0.03, loss_weight=5)
            ]
        )
    )
)
