"""LSHL2 on RoIs, PKD on the FPN and KL on the logits, all in one."""

_base_ = 'faster_rcnn_lshfm.py'

model = dict(
    distiller=dict(
        active=['lsh', 'l2', 'fpn', 'logits'],
        taps=dict(
            logits=dict(layer='roi_head.bbox_head.fc_cls', record='output')
        ),
        losses=dict(
            logits=[dict(type='KLDivergence', tau=4, loss_weight=0.5)]
        ),
    )
)
