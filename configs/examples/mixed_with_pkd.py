"""LSH and relative L2 on RoIs, and PKD of MMRazor on the FPN."""

_base_ = 'lshfm_mm::distill/recommended_roi-fpn_faster-rcnn_r101_faster-rcnn_r50_1x_coco.py'  # noqa: E501

model = dict(
    distiller=dict(
        # 'neck' has five outputs, so this one tap is five losses. PKD cannot
        # give objects half of its loss, as the recommended recipe does.
        taps=dict(fpn=dict(layer='neck', record='output', weights='uniform')),
        # Any loss of two features in MMRazor's registry can stand here.
        losses=dict(fpn=[dict(type='PKDLoss', loss_weight=6)]),
        # Which taps are mimicked; without this line all are. To leave PKD
        # out again: --cfg-options model.distiller.active="[roi]".
        active=['roi', 'fpn'],
    )
)
