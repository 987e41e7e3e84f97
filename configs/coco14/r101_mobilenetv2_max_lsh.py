"""LSH alone in one stage: r101 -> mobilenetv2, max pooling."""

_base_ = 'r101_mobilenetv2_max_lshl2.py'

model = dict(
    distiller=dict(
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=2048,
                    bias='median',
                    loss_weight=3,
                )
            ]
        )
    )
)
