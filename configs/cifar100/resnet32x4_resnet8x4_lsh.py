"""LSH alone on all samples: resnet32x4 -> resnet8x4."""

_base_ = 'resnet32x4_resnet8x4_lshfm.py'

model = dict(
    distiller=dict(
        taps=dict(pooled=dict(weights='uniform')),
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=32 * 256,
                    bias='median',
                    loss_weight=6,
                )
            ]
        ),
    )
)
