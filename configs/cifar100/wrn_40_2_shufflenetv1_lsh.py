"""LSH alone on all samples: wrn_40_2 -> shufflenetv1."""

_base_ = 'wrn_40_2_shufflenetv1_lshfm.py'

model = dict(
    distiller=dict(
        taps=dict(pooled=dict(weights='uniform')),
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=32 * 128,
                    bias='median',
                    loss_weight=6,
                )
            ]
        ),
    )
)
