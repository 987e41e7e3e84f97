"""LSH alone on all samples: resnet56 -> resnet20."""

_base_ = 'resnet56_resnet20_lshfm.py'

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
