"""LSH alone, which the authors could not train on RetinaNet."""

_base_ = 'retinanet_lshfm.py'

model = dict(
    distiller=dict(
        losses=dict(
            cls=[dict(type='LSHLoss', num_hashes=1024, loss_weight=7)]
        ),
    )
)
