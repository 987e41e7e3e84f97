"""LSH and relative L2 on RoIs, L2 on the FPN, into an inherited head.

Half of the FPN's loss is on objects. Layers and weights are those of a study
(docs/results.md).
"""

_base_ = 'faster_rcnn_lshfm.py'

model = dict(
    inherit=True,
    distiller=dict(
        active=['roi', 'fpn'],
        taps=dict(
            roi='roi_head.bbox_head.shared_fcs.1',  # before the class layer
            fpn=dict(weights='balanced'),
        ),
        losses=dict(
            roi=[
                dict(type='LSHLoss', loss_weight=4),
                dict(type='RelativeL2Loss', loss_weight=4),
            ],
            fpn=[dict(type='RelativeL2Loss', loss_weight=1)],
        ),
    ),
)
