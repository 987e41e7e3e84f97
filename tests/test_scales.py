"""How hard losses pull, against gradients by hand."""

import math
import re
import weakref
from pathlib import Path

import pytest
import torch
from mmcv.ops import SyncBatchNorm
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import distributed, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lshfm_mm.errors import ConfigError
from lshfm_mm.hooks.loss_scale_hook import has_sync_bn
from lshfm_mm.training.gradient_balance import (
    describe_ratio,
    gradient_ratios,
)

from .test_training import epochs


def test_ratios_are_of_the_shared_parameters_alone():
    """d task = (2, 3, .), d mimic = (4, ., 5): only the first is shared."""
    a, b, c = (torch.tensor(x, requires_grad=True) for x in (1.0, 2.0, 3.0))
    unused = torch.zeros(2, requires_grad=True)
    task, mimic = 2 * a + 3 * b, 4 * a + 5 * c
    ratios = gradient_ratios(
        task, dict(m=mimic, half=b / 2), [a, b, c, unused]
    )
    assert ratios == pytest.approx(dict(m=4 / 2, half=0.5 / 3))
    assert a.grad is b.grad is None
    (task + mimic).backward()  # the graph is still there
    assert a.grad == 6


def test_norms_are_over_all_shared_parameters():
    x, y = (torch.ones(3, requires_grad=True) for _ in range(2))
    task = (3 * x).sum() + (4 * y).sum()
    mimic = (x * torch.tensor([1.0, 2.0, 2.0])).sum() + 0 * y.sum()
    ratio = gradient_ratios(task, dict(m=mimic), [x, y])['m']
    assert ratio == pytest.approx(3 / math.sqrt(3 * 9 + 3 * 16))


def test_tiny_gradients_survive_half_precision():
    """1e-9 is 0 in float16; the ratio is not."""
    x = torch.ones(4, requires_grad=True)
    half = x.half()
    task, mimic = half.float().sum() * 1e-6, half.float().sum() * 1e-9
    assert torch.autograd.grad(mimic, half, retain_graph=True)[0][0] == 0
    ratio = gradient_ratios(task, dict(m=mimic), [x])['m']
    assert ratio == pytest.approx(1e-3, rel=0.02)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_gradient_of_one_parameter_exists_at_a_time(dtype, monkeypatch):
    """And no copies of it in another precision; autograd keeps a number."""
    parameters = [torch.ones(50, dtype=dtype).requires_grad_() for _ in 'abc']
    losses = {str(i): (i * sum(parameters)).sum().float() for i in range(1, 5)}
    grad, calls = torch.autograd.grad, []

    def watched(*args, **kwargs):
        assert all(x() is None for y in calls for x in y)
        found = grad(*args, **kwargs)
        assert {x.dtype for x in found} == {dtype}
        numbers = [x.untyped_storage().nbytes() for x in found]
        assert {*numbers} == {dtype.itemsize}
        calls.append([weakref.ref(x) for x in found])
        return found

    class Copies(TorchDispatchMode):
        alive: list = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.numel() == 50:
                assert out.dtype != torch.float64
                if out.dtype != dtype or 'pow' in str(function):
                    self.alive = [x for x in self.alive if x() is not None]
                    self.alive.append(weakref.ref(out))
                    assert len(self.alive) <= 2
            return out

    monkeypatch.setattr(torch.autograd, 'grad', watched)
    with Copies() as copies:
        ratios = gradient_ratios(losses.pop('1'), losses, parameters)
    assert ratios == pytest.approx({'2': 2, '3': 3, '4': 4}, rel=1e-5)
    assert len(calls) == 4 and copies.alive


@pytest.mark.parametrize('half', [False, True])
def test_gradients_go_back_to_the_last_shared_layer_alone(half):
    """As by hand; what lies before it gets none, also where weights are cast.

    Of two branches each has a last layer. A bias is no layer.
    """
    torch.manual_seed(0)
    before, left, right = (nn.Linear(4, 4) for _ in range(3))
    norm, connector, head = nn.LayerNorm(4), nn.Linear(4, 2), nn.Linear(4, 1)
    with torch.autocast('cpu', torch.bfloat16, enabled=half):
        first = before(torch.randn(8, 4)).relu()
        first.register_hook(lambda _: pytest.fail('went further back'))
        maps = left(first), norm(right(first)) + norm.bias
        tapped = sum(x.float().square().mean() for x in maps)
        mimic = tapped + sum(connector(x).float().mean() for x in maps)
        task = sum(head(x).float().exp().mean() for x in maps)
    layers = nn.ModuleList([before, left, right, norm, connector, head])
    ratio = gradient_ratios(task, dict(m=mimic), [*layers.parameters()])['m']
    first._backward_hooks.clear()
    shared = [left.weight, right.weight]
    above, below = (
        torch.cat(torch.autograd.grad(x, shared, retain_graph=True)).double()
        for x in (mimic, task)
    )
    expected = (above.norm() / below.norm()).item()
    assert ratio == pytest.approx(expected, rel=1e-2 if half else 1e-6)


def test_a_branch_whose_input_is_frozen_is_no_weight():
    """A residual block behind a frozen stem, with frozen BN: both branches."""
    torch.manual_seed(0)
    first, second, short = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(3))
    norm = nn.BatchNorm2d(3).requires_grad_(False)
    x = torch.randn(2, 3, 4, 4)
    mimic = (norm(second(norm(first(x)).relu())) + norm(short(x))).square()
    task = mimic.exp().mean()
    shared = [second.weight, short.weight]
    layers = nn.ModuleList([first, second, short])
    ratio = gradient_ratios(
        task, dict(m=mimic.mean()), [*layers.parameters()]
    )['m']
    above, below = (
        torch.cat(torch.autograd.grad(x, shared, retain_graph=True)).norm()
        for x in (mimic.mean(), task)
    )
    assert ratio == pytest.approx((above / below).item(), rel=1e-5)


def test_a_weight_of_two_layers_counts_once_and_keeps_no_hook():
    x, y = torch.randn(3, requires_grad=True), torch.randn(2)
    task, mimic = (x * x * x).sum(), (5 * x).sum() + (x[:2] * y).sum()
    ratio = gradient_ratios(task, dict(m=mimic), [x])['m']
    slope = torch.full((3,), 5.0, dtype=torch.float64)
    slope[:2] += y.double()
    expected = slope.norm() / (3 * x.detach().double() ** 2).norm()
    assert ratio == pytest.approx(expected.item(), rel=1e-6)
    assert not x._backward_hooks and x.grad is None


def test_an_infinite_square_is_no_infinite_norm():
    """1e20 fits float32, its square does not."""
    x = torch.ones(2, requires_grad=True)
    task, mimic = x.sum() * 1e20, x.sum() * 2e20
    ratio = gradient_ratios(task, dict(m=mimic), [x])['m']
    assert ratio == pytest.approx(2, rel=1e-5)


def test_layers_that_wait_for_other_processes(tmp_path):
    distributed.init_process_group(
        'gloo', (tmp_path / 'meeting').as_uri(), rank=0, world_size=1
    )
    try:
        layers = nn.SyncBatchNorm(4), SyncBatchNorm(4)
    finally:
        distributed.destroy_process_group()
    for layer in layers:
        assert has_sync_bn(nn.Sequential(nn.Conv2d(3, 4, 1), layer))
    assert not has_sync_bn(nn.Sequential(nn.BatchNorm2d(4)))


def test_without_anything_shared_there_is_no_ratio():
    x, y = (torch.ones((), requires_grad=True) for _ in range(2))
    ratios = gradient_ratios(2 * x, dict(m=y * 3, none=torch.ones(())), [x, y])
    assert all(map(math.isnan, ratios.values()))


def test_how_hard_is_no_fault_and_rounding_is():
    """2 ** 24 + 1 is no float32."""
    assert torch.tensor(2.0**24) + 1 == 2**24
    for ratio in (0.0, 1.1e-3, 240.0, 2.0**23):
        (line,) = describe_ratio('distill.x', [ratio, math.nan], 'a.b')
        assert line.startswith('distill.x: ')
        assert line.endswith(' times the gradient of the task')
        assert float(line.split()[1]) == pytest.approx(ratio, rel=1e-2)
    for ratio in (2.0**25, math.inf):
        _, warning = describe_ratio('distill.x', [1.0, ratio, ratio], 'a.b')
        assert re.fullmatch(
            'distill.x: pulls .* times as hard as the task, which is lost in '
            'the rounding of float32; lower a.b',
            warning,
        )
    _, warning = describe_ratio('distill.x', [0.5, 2e-4, 2e-4], 'a.b')
    assert warning.startswith('distill.x: pulls 0.0002 times as hard as the ')
    assert '; raise a.b. An LSHLoss does so where the weights of ' in warning
    assert describe_ratio('distill.x', [math.nan], 'a.b') == [
        'distill.x: shares no gradient with the task'
    ]


def run(make_config, lines, overrides=None):
    """Train for an epoch of six; return the model, and note what is said."""
    hook = dict(type='LossScaleHook', num_batches=5)
    cfg = make_config('faster_rcnn_recommended', epochs(1))
    cfg.custom_hooks = [hook] if lines is not None else []
    cfg.merge_from_dict(overrides or {})
    cfg.experiment_name = Path(cfg.work_dir).name
    runner = Runner.from_cfg(cfg)
    for level in ('info', 'warning') if lines is not None else ():
        write = getattr(runner.logger, level)
        setattr(
            runner.logger,
            level,
            lambda text, *a, write=write, level=level, **k: (
                lines.append((level, str(text))),
                write(text, *a, **k),
            ),
        )
    runner.train()
    return runner.model


@pytest.mark.parametrize(('weight', 'levels'), [(1e5, 1), (1e12, 2)])
def test_a_loss_is_told_and_warned_of_only_where_the_task_is_lost(
    make_config, weight, levels
):
    lines = []
    key = 'model.distiller.losses.roi.1.loss_weight'
    run(make_config, lines, {key: weight})
    told = [x for x in lines if x[1].startswith('distill.loss_roi_relativel2')]
    assert [x for x, _ in told] == ['info', 'warning'][:levels]
    assert float(told[0][1].split()[1]) > 50
    assert 'loss_weight=' not in told[-1][1]
    assert levels == 1 or told[1][1].endswith(f'; lower {key}')


def test_a_loss_that_pulls_less_is_told(make_config):
    lines = []
    key = 'model.distiller.losses.roi.1.loss_weight'
    run(make_config, lines, {key: 1e-3})
    told = [x for x in lines if x[1].startswith('distill.loss_roi_relativel2')]
    ((level, text),) = told
    assert level == 'info'
    ratio, rest = re.fullmatch(r'\S+: (\S+) (.*)', text).groups()
    assert 0 < float(ratio) < 0.1
    assert rest == 'times the gradient of the task'


def test_it_changes_no_weight(make_config):
    state = run(make_config, None).state_dict()
    for key, value in run(make_config, []).state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(num_batches=0), 'num_batches: must be an int >= 1, but got 0'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        HOOKS.build(dict(type='LossScaleHook', **arguments))


@pytest.mark.parametrize('tap', ['neck', 'backbone.layer1'])
def test_checkpointed_layers_behind_a_tap_are_no_matter(make_config, tap):
    """Those before it leave no gradient of one loss alone; that is said."""
    lines = []
    tapped = dict(layer=tap, record='output')
    changed = {
        'model.architecture.backbone.with_cp': True,
        'model.distiller.taps.fpn': tapped,
        'model.distiller.active': ['fpn'],
    }
    if tap != 'neck':
        changed['model.distiller.connectors.fpn'] = dict(
            type='TorchNNConnector',
            module_name='Conv2d',
            module_args=dict(in_channels=4, out_channels=8, kernel_size=1),
        )
    run(make_config, lines, changed)
    told = [text for _, text in lines if 'LossScaleHook' in text]
    stopped = (
        'LossScaleHook: does nothing, with checkpointed activations there is '
        'no gradient of one loss alone'
    )
    assert told == ([] if tap == 'neck' else [stopped])
    ratios = [x for _, x in lines if x.endswith('gradient of the task')]
    assert len(ratios) == (tap == 'neck')
