"""A foundation model as teacher: DINOv2 into a small CNN, without labels."""

# fmt: off
_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'  # the student
custom_imports = dict(imports=['lshfm_mm'], allow_failed_imports=False)
model = dict(_delete_=True, _scope_='mmrazor', type='FeatureMimicDistill',
    architecture=_base_.model,
    calculate_student_loss=False, student_trainable=['backbone'],
    teacher=dict(cfg_path='mmpretrain::dinov2/vit-small-p14_dinov2-pre_headless.py'),  # noqa: E501
    teacher_ckpt='https://download.openmmlab.com/mmpretrain/v1.0/dinov2/vit-small-p14_dinov2-pre_3rdparty_20230426-5641ca5a.pth',  # noqa: E501
    teacher_precision='bfloat16',
    distiller=dict(type='LSHFMDistiller',
        # The pooled feature of the one, the class token of the other.
        taps=dict(pooled=dict(record='output',
            student='neck', teacher='backbone')),
        connectors=dict(pooled=dict(type='LinearConnector',
            in_features=512, out_features=384)),
        losses=dict(pooled=[
            dict(type='LSHLoss', std='features', bias='median'),
            dict(type='RelativeL2Loss')])))
train_dataloader = dict(dataset=dict(_delete_=True, type='CustomDataset',
    data_root='data/photos', with_label=False,  # a folder, with its subfolders
    pipeline=_base_.train_pipeline))
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
