"""LSH alone on RoIs: one tap, so that tools/analyze.py compares once."""

_base_ = 'lshl2_roi_faster-rcnn_r34_faster-rcnn_r18_shapes.py'

model = dict(distiller=dict(active=['lsh']))
