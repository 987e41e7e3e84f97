"""LSH and relative L2 on the class tower, into an inherited head."""

_base_ = 'gfl_lshfm.py'

model = dict(
    inherit=True,
    distiller=dict(
        losses=dict(
            cls=[
                dict(type='LSHLoss', num_hashes=4096, loss_weight=1),
                dict(type='RelativeL2Loss', loss_weight=1),
            ]
        ),
    ),
)
