"""LSH alone on all samples: resnet50 -> mobilenetv2."""

_base_ = 'resnet50_mobilenetv2_lshfm.py'

model = dict(
    distiller=dict(
        taps=dict(pooled=dict(weights='uniform')),
        losses=dict(
            pooled=[
                dict(
                    type='LSHLoss',
                    num_hashes=32 * 2048,
                    bias='median',
                    loss_weight=6,
                )
            ]
        ),
    )
)
