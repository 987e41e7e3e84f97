"""LSH and relative L2 on RoIs, L2 on the FPN, into an inherited head.

Layers and weights are those of a study on generated images (docs/results.md).
"""

_base_ = 'faster_rcnn_lshfm.py'

model = dict(
    inherit=True,
    distiller=dict(
        active=['roi', 'fpn'],
        # Before the class layer.
        taps=dict(roi='roi_head.bbox_head.shared_fcs.1'),
        losses=dict(
            roi=[
                dict(type='LSHLoss', loss_weight=4),
                dict(type='RelativeL2Loss', loss_weight=4),
            ],
            fpn=[dict(type='RelativeL2Loss', loss_weight=1)],
        ),
    ),
)
