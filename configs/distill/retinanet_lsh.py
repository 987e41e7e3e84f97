"""LSH alone on the class tower of RetinaNet."""

_base_ = 'retinanet_lshfm.py'

model = dict(
    distiller=dict(
        losses=dict(
            cls=[
                dict(type='LSHLoss', num_hashes=4096, loss_weight=7),
            ]
        ),
    ),
)
