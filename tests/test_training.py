"""Whole training runs: the contracts that only a Runner can break."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student

LSH = 'loss_roi_lsh.sums'
OFF = {
    'model.distiller.losses.roi': [
        dict(type='LSHLoss', loss_weight=0),
        dict(type='L2Loss', normalize=False, div_element=True, loss_weight=0),
    ]
}


def train(cfg) -> Runner:
    """Train from a config and return the runner."""
    cfg.experiment_name = Path(cfg.work_dir).name + str(id(cfg))
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def epochs(number: int) -> dict:
    return {'train_cfg.max_epochs': number, 'train_cfg.val_interval': 99}


def test_workers_that_are_spawned_load_what_others_load(make_config):
    """As on macOS and Windows: all that a worker needs must be pickled."""
    states = []
    for start in (None, 'spawn'):
        loader = {
            'train_dataloader.num_workers': 1,
            'train_dataloader.multiprocessing_context': start,
            'train_dataloader.batch_size': 4,
        }
        cfg = make_config('faster_rcnn_recommended', {**epochs(1), **loader})
        states.append(train(cfg).model.state_dict())
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_weight_zero_is_plain_training_bit_for_bit(make_config):
    """24 iterations (4 epochs of 6), seeds and schedule of the config."""
    plain = train(make_config('faster_rcnn_student', epochs(4)))
    off = train(
        make_config(
            'faster_rcnn_lshfm',
            {**epochs(4), **OFF},
        )
    )
    assert plain.iter == off.iter == 24
    expected = plain.model.state_dict()
    student = off.model.student.state_dict()
    assert expected.keys() == student.keys()
    for key, value in expected.items():
        assert torch.equal(value, student[key]), key


def test_weight_zero_is_plain_training_with_a_connector(make_config):
    """A connector draws its own weights: that must not show either."""
    connector = {
        'model.distiller.connectors': dict(
            roi=dict(
                type='TorchNNConnector',
                module_name='Linear',
                module_args=dict(in_features=256, out_features=256),
                init_cfg=dict(type='Normal', layer='Linear', std=0.01),
            )
        )
    }
    plain = train(make_config('faster_rcnn_student', epochs(1)))
    off = train(
        make_config(
            'faster_rcnn_lshfm',
            {
                **epochs(1),
                **OFF,
                **connector,
            },
        )
    )
    student = off.model.student.state_dict()
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, student[key]), key


def test_mimicking_changes_the_student(make_config):
    """The counterpart of weight 0: otherwise that test proves nothing."""
    off = train(make_config('faster_rcnn_lshfm', {**epochs(1), **OFF}))
    on = train(
        make_config(
            'faster_rcnn_lshfm',
            {**epochs(1)},
        )
    )
    key = 'roi_head.bbox_head.shared_fcs.0.weight'
    assert not torch.equal(
        off.model.student.state_dict()[key], on.model.student.state_dict()[key]
    )


def test_checkpoints_hold_no_teacher_and_resume_by_themselves(make_config):
    overrides = {
        'model.distiller.losses.roi': [dict(type='LSHLoss', seed=5)],
        'custom_hooks': [dict(type='EMAHook', _scope_='mmengine')],
    }
    first = train(make_config('faster_rcnn_lshfm', {**epochs(1), **overrides}))
    path = Path(first.work_dir) / 'epoch_1.pth'
    content = torch.load(path, weights_only=True)
    for part in ('state_dict', 'ema_state_dict'):
        assert not any('teacher' in key for key in content[part])
    optimised = content['optimizer']['param_groups'][0]['params']
    assert len(optimised) == len(list(first.model.student.parameters()))
    (projection,) = (
        content['state_dict'][x] for x in content['state_dict'] if LSH in x
    )
    drawn = first.model.distiller.distill_losses.loss_roi_lsh.weight
    assert torch.equal(projection, drawn.sum(dim=1))

    cfg = make_config('faster_rcnn_lshfm', {**epochs(2), **overrides})
    cfg.merge_from_dict(dict(resume=True, work_dir=first.work_dir))
    second = train(cfg)
    assert second.epoch == 2
    again = second.model.distiller.distill_losses.loss_roi_lsh.weight
    assert torch.equal(again, drawn)
    overrides['model.distiller.losses.roi'] = [dict(type='LSHLoss', seed=6)]
    cfg = make_config('faster_rcnn_lshfm', {**epochs(3), **overrides})
    cfg.merge_from_dict(dict(resume=True, work_dir=first.work_dir))
    with pytest.raises(ConfigError, match='loss_roi_lsh: the checkpoint was'):
        train(cfg)


def test_inheriting_happens_before_loading_and_not_on_resume(make_config):
    """What training made of the head must survive a resume."""
    first = train(make_config('faster_rcnn_recommended', epochs(1)))
    trained = copy.deepcopy(first.model.student.state_dict())
    cfg = make_config('faster_rcnn_recommended', epochs(1))
    cfg.merge_from_dict(dict(resume=True, work_dir=first.work_dir))
    second = train(cfg)
    key = 'roi_head.bbox_head.fc_cls.weight'
    after = second.model.student.state_dict()[key]
    assert torch.equal(after, trained[key])
    assert not torch.equal(after, second.model.teacher.state_dict()[key])


def test_an_average_of_the_student_is_saved_and_exported(
    make_config, tmp_path
):
    """EMA against one by hand; what is exported is what was evaluated."""
    ema = dict(type='EMAHook', momentum=0.25, _scope_='mmengine')
    cfg = make_config(
        'faster_rcnn_lshfm', {**epochs(1), 'custom_hooks': [ema]}
    )
    seen = []

    class Witness(Hook):
        def after_train_iter(self, runner, *args, **kwargs):
            state = runner.model.student.state_dict()
            seen.append({k: v.clone() for k, v in state.items()})

    cfg.experiment_name = 'ema'
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Witness(), priority='VERY_LOW')
    runner.train()
    path = Path(runner.work_dir) / 'epoch_1.pth'
    content = torch.load(path, weights_only=True)
    own = {'steps', *(f'module.{key}' for key in runner.model.state_dict())}
    assert content['ema_state_dict'].keys() == own
    of_student = {x for x in own if x.startswith('module.architecture.')}
    assert own - of_student == {
        'steps',
        'module.distiller.distill_losses.loss_roi_lsh.sums',
        'module.distiller.distill_losses.loss_roi_lsh.bias',
    }
    export_student(str(path), str(tmp_path / 'student.pth'))
    student = torch.load(tmp_path / 'student.pth')['state_dict']
    key = 'roi_head.bbox_head.fc_cls.weight'
    mean = seen[0][key]
    for state in seen[1:]:
        mean = 0.75 * mean + 0.25 * state[key]
    torch.testing.assert_close(student[key], mean)
    assert not torch.allclose(student[key], seen[-1][key])
    last = content['ema_state_dict'][f'module.architecture.{key}']
    assert torch.equal(last, seen[-1][key])
