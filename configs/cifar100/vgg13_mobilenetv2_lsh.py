"""LSH alone on all samples: vgg13 -> mobilenetv2."""

_base_ = 'vgg13_mobilenetv2_lshfm.py'

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
