"""Goes on by itself: start the same command again after an interruption."""

_base_ = 'lshfm_mm::distill/recommended_roi-fpn_faster-rcnn_r101_faster-rcnn_r50_1x_coco.py'  # noqa: E501

# From the latest checkpoint of work_dir, or from the beginning where there is
# none. It holds optimizer, schedule, the hash functions and their bias; the
# teacher is read from its own file again.
resume = True
# The last three are kept: one may be lost with its disk.
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3))
# The same order of images in the epochs that are left.
randomness = dict(seed=0)
