"""LSH alone on all samples: resnet110 -> resnet32."""

_base_ = 'resnet110_resnet32_lshfm.py'

model = dict(
    distiller=dict(
        taps=dict(pooled=dict(weights='uniform')),
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=32 * 64,
                    bias='median',
                    loss_weight=6,
                )
            ]
        ),
    )
)
