"""A NaN in a loss: said, kept from the weights, and never passed over."""

import copy
import json
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from lshfm_mm.distillers.level_pairs import Level, TapObservation
from lshfm_mm.errors import ConfigError, NonFiniteError
from lshfm_mm.hooks import NonFiniteHook
from lshfm_mm.training.non_finite import describe_explosion, describe_nonfinite
from lshfm_mm.utils.listener import Listener

from .test_training import epochs


class Spoil(Hook):
    """Make the LSH loss NaN in some iterations; note the weights of all."""

    priority = 'LOWEST'

    def __init__(self, iterations):
        self.iterations = iterations
        self.before, self.after, self.images = {}, {}, {}

    def state(self, runner):
        return copy.deepcopy(
            [runner.model.state_dict(), runner.optim_wrapper.state_dict()]
        )

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        bias = runner.model.distiller.distill_losses.loss_roi_lsh.bias
        bias.fill_(torch.nan if runner.iter in self.iterations else 0)
        self.before[runner.iter] = self.state(runner)
        self.images[runner.iter] = [
            x.img_path for x in data_batch['data_samples']
        ]

    def after_train_iter(self, runner, batch_idx, **kwargs):
        self.after[runner.iter] = self.state(runner)


@pytest.fixture
def spoiled(make_config):
    """A runner whose LSH loss is NaN in some iterations, and the hook."""

    def make(iterations, **hook):
        cfg = make_config(
            'faster_rcnn_lshfm',
            {
                **epochs(1),
                'custom_hooks': [dict(type='NonFiniteHook', **hook)],
            },
        )
        cfg.experiment_name = Path(cfg.work_dir).name
        runner = Runner.from_cfg(cfg)
        spoil = Spoil(iterations)
        runner.register_hook(spoil)
        return runner, spoil

    return make


def flat(state):
    """All tensors in a state, by their path."""
    leaves, _ = torch.utils._pytree.tree_flatten_with_path(state)
    return {str(path): x for path, x in leaves if isinstance(x, torch.Tensor)}


def test_it_stops_before_the_update_and_says_what_it_saw(spoiled):
    runner, spoil = spoiled([3])
    with pytest.raises(NonFiniteError) as error:
        runner.train()
    path = Path(runner.work_dir) / 'nonfinite_iter_3.json'
    assert str(error.value).startswith(
        f'iteration 3: not finite is distill.loss_roi_lsh; its images, '
        f'losses and features are in {path}; nothing was updated: '
    )
    assert '\n' not in str(error.value)
    report = json.loads(path.read_text())
    assert report['not_finite'] == ['distill.loss_roi_lsh']
    assert report['losses']['distill.loss_roi_lsh'] == ['nan']
    assert report['losses']['student.loss_rpn_cls'][0] > 0
    assert report['images'] == spoil.images[3]
    assert all(Path(x).is_file() for x in report['images'])
    ((level,), *_) = report['taps'].values()
    for owner in ('student', 'teacher'):
        statistics = level[owner]
        assert statistics['nan'] == statistics['inf'] == 0
        assert statistics['shape'][1] == 256
        assert 0 < statistics['rms'] < statistics['max']
    # Weights and momentum are as before the batch; BN has seen it.
    before, now = flat(spoil.before[3]), flat(spoil.state(runner))
    assert before.keys() == now.keys()
    for key, value in before.items():
        if 'running_' not in key and 'num_batches' not in key:
            assert torch.equal(value, now[key]) or 'loss_roi_lsh' in key, key


@pytest.mark.parametrize(
    ('value', 'facts'),
    [
        (2.0, ''),
        (5e8, '(RMS 5e+08, 0 NaN, 0 infinite; the teacher has RMS 1)'),
        (torch.inf, '(RMS 0, 0 NaN, 6 infinite; the teacher has RMS 1)'),
    ],
)
def test_an_explosion_is_no_fault_of_the_images(value, facts):
    level = Level(torch.full((2, 3), value), torch.ones(2, 3), 0, 0)
    seen = dict(roi=TapObservation([level], None))
    said = describe_explosion(describe_nonfinite({}, seen, None))
    start = '; the features of the student at taps.roi have exploded '
    assert said == (start + facts if facts else '')


def test_a_skipped_batch_leaves_no_trace_in_weights_or_momentum(spoiled):
    runner, spoil = spoiled([1, 4], action='skip', max_skips=2)
    runner.train()
    assert runner.iter == 6
    for iteration in range(6):
        before = flat(spoil.before[iteration])
        after = flat(spoil.after[iteration])
        moved = [
            key
            for key, value in before.items()
            if 'running_' not in key
            and 'num_batches' not in key
            and 'loss_roi_lsh' not in key
            and not torch.equal(value, after[key])
        ]
        assert bool(moved) == (iteration not in (1, 4)), iteration
        assert not moved or all(after[x].isfinite().all() for x in moved)
    found = sorted(x.name for x in Path(runner.work_dir).glob('nonf*'))
    assert found == ['nonfinite_iter_1.json', 'nonfinite_iter_4.json']


def test_skipping_is_bounded(spoiled):
    runner, _ = spoiled([0, 2, 3], action='skip', max_skips=2)
    with pytest.raises(NonFiniteError, match='^iteration 3: .*max_skips=2$'):
        runner.train()


def poison(runner, iteration, act):
    """Call ``act`` on the student in one iteration only."""

    class Poison(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == iteration:
                act(runner.model.student)

    runner.register_hook(Poison())


def test_a_batch_that_spoils_batchnorm_stops_even_when_skipping(spoiled):
    """Its running mean would be infinite for good, in evaluation and EMA."""
    runner, _ = spoiled([3], action='skip')

    def spoil(student):
        student.backbone.bn1.running_mean.fill_(torch.inf)

    poison(runner, 3, spoil)
    with pytest.raises(NonFiniteError, match='spoiled .*bn1.running_mean and'):
        runner.train()


@pytest.mark.parametrize('action', ['stop', 'skip'])
def test_gradients_that_are_not_finite_reach_no_weight(spoiled, action):
    runner, spoil = spoiled([], action=action)

    def break_backward(student):
        weight = student.neck.fpn_convs[0].conv.weight
        weight.register_hook(lambda gradient: gradient * torch.nan)

    poison(runner, 2, break_backward)
    with pytest.raises(NonFiniteError, match='^iteration 2: .* gradients of '):
        runner.train()
    assert all(x.isfinite().all() for x in runner.model.parameters())


def test_a_skipped_batch_counts_among_those_summed_up(make_config):
    """Steps stay after each second batch, and no gradient is left over."""
    cfg = make_config(
        'faster_rcnn_lshfm',
        {
            **epochs(1),
            'optim_wrapper.accumulative_counts': 2,
            'custom_hooks': [dict(type='NonFiniteHook', action='skip')],
        },
    )
    cfg.experiment_name = Path(cfg.work_dir).name
    runner = Runner.from_cfg(cfg)
    spoil = Spoil([2])
    runner.register_hook(spoil)
    runner.train()
    moved = [
        i
        for i in range(6)
        if not torch.equal(
            spoil.before[i][0]['architecture.neck.fpn_convs.0.conv.weight'],
            spoil.after[i][0]['architecture.neck.fpn_convs.0.conv.weight'],
        )
    ]
    assert moved == [1, 3, 5]
    assert all(x.grad is None for x in runner.model.parameters())
    assert runner.message_hub.get_info('nonfinite_skipped') == 1


def test_nothing_is_kept_after_an_iteration(spoiled):
    """Features held over the next forward pass would cost memory."""
    runner, _ = spoiled([])
    runner.train()
    (hook,) = (x for x in runner.hooks if isinstance(x, NonFiniteHook))
    assert (hook._seen, hook._losses, hook._batch) == ({}, {}, None)


def test_nothing_is_held_through_the_backward_pass(spoiled):
    """Features of both models in float32 would wait there for nothing."""
    runner, _ = spoiled([])
    held = []

    class Watch(Hook):
        def before_train(self, runner):
            (hook,) = (x for x in runner.hooks if hasattr(x, 'max_skips'))
            runner.model.student.backbone.conv1.weight.register_hook(
                lambda _: held.append((hook._seen, hook._losses))
            )
            self.observed = []
            runner.model.distiller.observers.append(
                lambda *_: self.observed.append(len(hook._seen))
            )

    watch = Watch()
    runner.register_hook(watch, priority='LOWEST')
    runner.train()
    assert held == [({}, {})] * 6
    assert watch.observed == [1] * 6  # till then it had what it describes


def test_a_model_in_training_can_be_copied(make_config):
    """Hooks hold the runner; a copy of the model knows none of them."""
    cfg = make_config(
        'faster_rcnn_lshfm',
        {
            **epochs(1),
            'custom_hooks': [
                dict(type=x)
                for x in ('NonFiniteHook', 'AlignmentHook', 'LossScaleHook')
            ],
        },
    )
    cfg.custom_hooks[1].interval = 1
    cfg.experiment_name = Path(cfg.work_dir).name
    runner = Runner.from_cfg(cfg)
    copies = []

    class Copy(Hook):
        def after_train_epoch(self, runner):
            copies.append(copy.deepcopy(runner.model))

    runner.register_hook(Copy())
    runner.train()
    ours, theirs = (x.state_dict() for x in (runner.model, copies[0]))
    assert all(torch.equal(theirs[key], x) for key, x in ours.items())
    scalars = runner.message_hub.log_scalars
    assert len(scalars['train/roi.angle'].data[0]) == 6
    for model, are_called in ((copies[0], False), (runner.model, True)):
        listeners = [
            *model.distiller.observers,
            *model._forward_hooks.values(),
        ]
        methods = [x.function for x in listeners if isinstance(x, Listener)]
        assert len(methods) == 4
        assert [x is not None for x in methods] == [are_called] * 4
    Listener(None)(1, 2)  # and calls nothing


def test_a_task_loss_is_watched_too(spoiled):
    runner, spoil = spoiled([])

    class Poison(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 2:
                head = runner.model.student.roi_head.bbox_head
                head.loss_bbox.loss_weight = float('inf')

    runner.register_hook(Poison())
    with pytest.raises(NonFiniteError, match='is student.loss_bbox;'):
        runner.train()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            dict(action='ignore'),
            'action: must be one of',
        ),
        (dict(action='skip', max_skips=0), 'max_skips: must be an int >= 1'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        HOOKS.build(dict(type='NonFiniteHook', **arguments))


def test_it_is_for_distillations(make_config):
    cfg = make_config(
        'faster_rcnn_student', {'custom_hooks': [dict(type='NonFiniteHook')]}
    )
    cfg.experiment_name = Path(cfg.work_dir).name
    with pytest.raises(ConfigError, match='remove it from custom_hooks'):
        Runner.from_cfg(cfg).train()
