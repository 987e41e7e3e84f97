"""LSH alone in one stage: r34 -> r18."""

_base_ = 'r34_r18_lshl2.py'

model = dict(
    distiller=dict(
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=2048,
                    bias='median',
                    loss_weight=0.5,
                )
            ]
        )
    )
)
