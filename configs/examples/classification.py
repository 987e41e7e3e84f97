"""A classifier of mmpretrain: the pooled feature before its last layer."""

_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='FeatureMimicDistill',
    architecture=_base_.model,
    inherit=True,  # the class layers have one shape and the same classes
    teacher=dict(cfg_path='mmpretrain::resnet/resnet34_8xb32_in1k.py'),
    teacher_ckpt='https://download.openmmlab.com/mmclassification/v0/resnet/resnet34_8xb32_in1k_20210831-f257d4e6.pth',  # noqa: E501
    distiller=dict(
        type='LSHFMDistiller',
        # Only of images that the teacher gets right, as in the paper.
        taps=dict(pooled=dict(layer='head.fc', weights='correct')),
        losses=dict(
            pooled=[
                dict(type='LSHLoss', num_hashes=2048, loss_weight=6),
                dict(type='RelativeL2Loss', loss_weight=6),
            ]
        ),
    ),
)
# Another width of the student needs an embedding: docs/classification.md.
