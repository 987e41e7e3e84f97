"""LSH alone on all samples: vgg13 -> vgg8."""

_base_ = 'vgg13_vgg8_lshfm.py'

model = dict(
    distiller=dict(
        taps=dict(pooled=dict(weights='uniform')),
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=32 * 512,
                    bias='median',
                    loss_weight=6,
                )
            ]
        ),
    )
)
