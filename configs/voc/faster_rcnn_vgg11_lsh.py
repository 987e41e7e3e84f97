"""LSH alone on RoIs: vgg16 -> vgg11."""

_base_ = 'faster_rcnn_vgg11_lshfm.py'

model = dict(
    distiller=dict(losses=dict(roi=[dict(type='LSHLoss', loss_weight=7)]))
)
