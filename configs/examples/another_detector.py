"""A one-stage detector: tap the layer that gives the class scores."""

_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',  # RoIMimicDistill if it classifies RoIs
    architecture=_base_.model,
    inherit=True,  # neck and head start as the teacher's: classes must agree
    teacher=dict(cfg_path='mmdet::atss/atss_r101_fpn_1x_coco.py'),
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/atss/atss_r101_fpn_1x_coco/atss_r101_fpn_1x_20200825-dfcadd6f.pth',  # noqa: E501
    distiller=dict(
        type='LSHFMDistiller',
        # print(model) shows the names; tools/make_config.py finds them.
        taps=dict(cls='bbox_head.atss_cls'),
        losses=dict(
            cls=[
                dict(type='LSHLoss', num_hashes=4096),
                dict(type='RelativeL2Loss'),
            ]
        ),
    ),
)
