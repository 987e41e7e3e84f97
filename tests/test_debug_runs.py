"""What a machine without workers, a GPU or processes does with a config."""

from argparse import Namespace

import pytest
import torch
from mmdet.models.dense_heads import DETRHead
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import Runner
from mmrazor.registry import MODELS
from torch import nn

from lshfm_mm.cli import upstream
from lshfm_mm.cli.start import run_main
from lshfm_mm.errors import ConfigError

SYNC = dict(norm_cfg=dict(type='SyncBN', requires_grad=True))


def arguments(**given):
    """Of the training tool."""
    given = {'amp': False, 'auto_scale_lr': False, **given}
    return Namespace(cfg_options={'a': 1}, **given)


def test_workers_that_are_none_are_not_kept(make_config):
    """mmpretrain's tool keeps them where the config says nothing."""
    cfg = make_config('faster_rcnn_student')
    cfg.train_dataloader.update(persistent_workers=True, prefetch_factor=2)
    cfg.val_dataloader.num_workers = 2
    args = arguments()
    upstream.fit_machine(args, cfg)
    assert args.cfg_options == {
        'a': 1,
        'train_dataloader.persistent_workers': False,
        'train_dataloader.prefetch_factor': None,
        'test_dataloader.persistent_workers': False,
    }
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    assert len(next(iter(loader))['inputs']) == 2


@pytest.mark.parametrize(
    ('amp', 'kind'), [(True, 'OptimWrapper'), (False, 'AmpOptimWrapper')]
)
def test_mixed_precision_on_a_cpu_is_one_line(amp, kind):
    cfg = Config(dict(optim_wrapper=dict(type=kind)))
    with pytest.raises(ConfigError) as error:
        upstream.fit_machine(arguments(amp=amp), cfg)
    start, fix = (
        'leave --amp out, and write' if amp else 'none; write',
        "type='OptimWrapper', or 'mmrazor.BFloat16OptimWrapper' for bfloat16",
    )
    assert f'{start} {fix}' in str(error.value)
    # Of a test it is not built.
    upstream.fit_machine(Namespace(cfg_options=None), cfg)


def test_auto_scale_lr_needs_a_batch_size_and_no_more():
    args = arguments(auto_scale_lr=True)
    for given in ({}, dict(auto_scale_lr=None), dict(auto_scale_lr={})):
        with pytest.raises(ConfigError, match='auto_scale_lr: --auto-scale'):
            upstream.fit_machine(args, Config(given))
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=16)))
    upstream.fit_machine(args, cfg)
    assert args.cfg_options['auto_scale_lr.enable'] is True
    assert cfg.auto_scale_lr.enable is True


def test_sync_bn_of_both_models_trains_in_one_process(make_config, batch):
    """Of the student it becomes BN, of the teacher it is frozen."""
    model = make_config('faster_rcnn_lshfm').model
    teacher = make_config('faster_rcnn_student').model
    model.architecture.backbone.update(SYNC)
    teacher.backbone.update(SYNC)
    teacher = MODELS.build(teacher)
    assert isinstance(teacher.backbone.bn1, nn.SyncBatchNorm)
    model = MODELS.build(dict(model, teacher=teacher, teacher_ckpt=None))
    model = revert_sync_batchnorm(model).train()
    assert type(model.student.backbone.bn1) is not nn.SyncBatchNorm
    torch.manual_seed(0)
    data = model.data_preprocessor(batch, training=True)
    assert model(**data, mode='loss')['distill.loss_roi_lsh'].isfinite()


def test_mmcvs_sync_bn_in_one_process_is_one_line(make_config):
    student = make_config('faster_rcnn_student').model
    student.backbone.norm_cfg = dict(type='MMSyncBN', requires_grad=True)
    with pytest.raises(SystemExit) as error:
        run_main(lambda: MODELS.build(student))
    assert "write 'SyncBN', which one process runs" in str(error.value)


def test_a_detr_that_is_asked_for_more_than_its_queries_is_one_line():
    head = DETRHead(num_classes=3, test_cfg=dict(max_per_img=300))
    scores = torch.rand(60, 3)
    found = scores, torch.rand(60, 4), dict(img_shape=(9, 9))
    with pytest.raises(SystemExit) as error:
        run_main(lambda: head._predict_by_feat_single(*found))
    assert 'model.test_cfg.max_per_img: is more than the' in str(error.value)
    with pytest.raises(RuntimeError):  # of a topk that nobody knows
        run_main(lambda: scores.topk(99))


def test_ctrl_c_ends_a_tool_in_the_line_that_it_says():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match='^tool: stopped$'):
        run_main(stop, stopped='tool: stopped')
    with pytest.raises(KeyboardInterrupt):
        run_main(stop)
