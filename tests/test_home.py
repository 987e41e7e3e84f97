"""Contract 9: what others do to their model has its effect on the student.

Mostly by contract 1: with mimicking of weight 0 a distillation must leave
behind, bit for bit, what plain training leaves with the same hook or loop.
"""

import ast
import copy
import importlib
import inspect
import json
import textwrap
from argparse import Namespace

import pytest
import torch
from mmdet.engine.hooks import NumClassCheckHook, sync_norm_hook
from mmengine import registry
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.runner import runner as mmengine_runner
from mmpretrain.models import ImageClassifier, TimmClassifier
from mmpretrain.registry import MODELS
from torch import nn

from lshfm_mm.cli import training
from lshfm_mm.cli.unsuited import UNSUITED
from lshfm_mm.compat import stacks
from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student
from lshfm_mm.export.student import plain_config
from lshfm_mm.utils.rng import forked_rng

from .conftest import mmdet_config, read_shapes
from .test_distributed import in_two

STACK = ('mmcv', 'mmengine', 'mmdet', 'mmpretrain', 'mmrazor')
for _package in STACK[2:]:
    importlib.import_module(f'{_package}.utils').register_all_modules(False)
importlib.import_module('mmrazor.implementations')

BLIND = 'does not look at the model'
UNTRIED = 'wraps the model as Runner does, and needs a GPU'
REFUSED = 'refused'
ABSENT = 'needs a package that is not installed: '
LOSS = [dict(type='RelativeL2Loss', loss_weight=0)]
CLASSES = ('circle', 'square', 'triangle', 'star', 'cross', 'ring')

# Each hook, loop, ... of the installed packages: blind, refused with the line
# of UNSUITED, or the test of this file that shows that it works.
TABLE = {
    'HOOKS': {
        'mmcv.RFSearchHook': 'test_a_search_of_receptive_fields',
        'mmdet.CheckInvalidLossHook': BLIND,
        'mmdet.DetVisualizationHook': BLIND,
        'mmdet.GroundingVisualizationHook': BLIND,
        'mmdet.MeanTeacherHook': REFUSED,
        'mmdet.MemoryProfilerHook': BLIND,
        'mmdet.NumClassCheckHook': 'test_classes_are_counted',
        'mmdet.PipelineSwitchHook': BLIND,
        'mmdet.SetEpochInfoHook': 'test_hooks',
        'mmdet.SyncNormHook': 'test_norms_of_two_processes',
        'mmdet.TrackVisualizationHook': BLIND,
        'mmdet.TrainAugmentDetVisualizationHook': BLIND,
        'mmdet.YOLOXModeSwitchHook': 'test_yolox_whole',
        'mmengine.CheckpointHook': BLIND,
        'mmengine.DistSamplerSeedHook': BLIND,
        'mmengine.EMAHook': 'test_hooks',
        'mmengine.EarlyStoppingHook': BLIND,
        'mmengine.EmptyCacheHook': BLIND,
        'mmengine.IterTimerHook': BLIND,
        'mmengine.LoggerHook': BLIND,
        'mmengine.NPUProfilerHook': BLIND,
        'mmengine.NaiveVisualizationHook': 'test_the_graph_is_the_students',
        'mmengine.ParamSchedulerHook': BLIND,
        'mmengine.PrepareTTAHook': 'test_augmented_tests',
        'mmengine.ProfilerHook': BLIND,
        'mmengine.RuntimeInfoHook': BLIND,
        'mmengine.SyncBuffersHook': 'test_hooks',
        'mmpretrain.ClassNumCheckHook': 'test_classes_are_counted',
        'mmpretrain.DenseCLHook': 'test_hooks',
        'mmpretrain.EMAHook': 'test_hooks',
        'mmpretrain.PreciseBNHook': 'test_hooks',
        'mmpretrain.PrepareProtoBeforeValLoopHook': REFUSED,
        'mmpretrain.SetAdaptiveMarginsHook': 'test_hooks',
        'mmpretrain.SimSiamHook': BLIND,
        'mmpretrain.SwAVHook': 'test_hooks',
        'mmpretrain.SwitchRecipeHook': 'test_hooks',
        'mmpretrain.VisualizationHook': BLIND,
        'mmpretrain.WarmupParamHook': 'test_hooks',
        'mmrazor.DMCPSubnetHook': REFUSED,
        'mmrazor.DumpSubnetHook': REFUSED,
        'mmrazor.EstimateResourcesHook': 'test_resources_are_the_students',
        'mmrazor.PruningStructureHook': REFUSED,
        'mmrazor.RazorVisualizationHook': 'test_maps_are_drawn',
        'mmrazor.ResourceInfoHook': REFUSED,
        'mmrazor.StopDistillHook': 'test_mimicking_stops',
    },
    'LOOPS': {
        'mmdet.TeacherStudentValLoop': REFUSED,
        'mmengine.EpochBasedTrainLoop': 'test_hooks',
        'mmengine.IterBasedTrainLoop': 'test_loops',
        'mmengine.TestLoop': 'test_augmented_tests',
        'mmengine.ValLoop': 'test_loops',
        'mmpretrain.RetrievalTestLoop': 'test_retrieval',
        'mmpretrain.RetrievalValLoop': 'test_retrieval',
        'mmrazor.AutoSlimGreedySearchLoop': REFUSED,
        'mmrazor.DartsEpochBasedTrainLoop': REFUSED,
        'mmrazor.DartsIterBasedTrainLoop': REFUSED,
        'mmrazor.EvolutionSearchLoop': REFUSED,
        'mmrazor.GreedySamplerTrainLoop': REFUSED,
        'mmrazor.ItePruneValLoop': REFUSED,
        'mmrazor.SelfDistillValLoop': 'test_loops',
        'mmrazor.SingleTeacherDistillValLoop': 'test_the_teacher_evaluated',
        'mmrazor.SlimmableValLoop': REFUSED,
        'mmrazor.SubnetValLoop': REFUSED,
    },
    'OPTIM_WRAPPER_CONSTRUCTORS': {
        'mmdet.LearningRateDecayOptimizerConstructor': 'test_rates',
        'mmengine.DefaultOptimWrapperConstructor': 'test_rates',
        'mmpretrain.LearningRateDecayOptimWrapperConstructor': 'test_rates',
        'mmrazor.SeparateOptimWrapperConstructor': REFUSED,
    },
    'OPTIM_WRAPPERS': {
        'mmengine.AmpOptimWrapper': BLIND,
        'mmengine.ApexOptimWrapper': f'{ABSENT}apex',
        'mmengine.ColossalAIOptimWrapper': f'{ABSENT}colossalai',
        'mmengine.DeepSpeedOptimWrapper': f'{ABSENT}deepspeed',
        'mmengine.OptimWrapper': BLIND,
    },
    'RUNNERS': {
        'mmengine.FlexibleRunner': 'test_loops',
        'mmengine.Runner': 'test_loops',
    },
    'STRATEGIES': {
        'mmengine.ColossalAIStrategy': REFUSED,
        'mmengine.DDPStrategy': UNTRIED,
        'mmengine.DeepSpeedStrategy': REFUSED,
        'mmengine.FSDPStrategy': REFUSED,
        'mmengine.SingleDeviceStrategy': 'test_loops',
    },
    'VISUALIZERS': {
        'mmdet.DetLocalVisualizer': BLIND,
        'mmdet.TrackLocalVisualizer': BLIND,
        'mmengine.Visualizer': BLIND,
        'mmpretrain.SingleKPVisualizer': BLIND,
        'mmpretrain.UniversalVisualizer': BLIND,
    },
}

OF_ONEDL = {  # and of no package of OpenMMLab's
    'mmdet.TrainAugmentDetVisualizationHook',
    'mmpretrain.SingleKPVisualizer',
}


def registered(name):
    """What the stack's packages have in a registry."""
    todo, found = [getattr(registry, name)], {}
    while todo:
        one = todo.pop()
        todo += one.children.values()
        for kind in one.module_dict.values():
            package = kind.__module__.partition('.')[0]
            if package in STACK:
                found[f'{package}.{kind.__name__}'] = kind
    return found


def looks_at_model(kind):
    """Whether a class, or one that it is made of, reads ``.model``."""
    for part in kind.__mro__:
        if part.__module__.partition('.')[0] in STACK:
            tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
            for node in ast.walk(tree):
                if getattr(node, 'attr', None) == 'model':
                    return True
    return False


@pytest.mark.parametrize('name', TABLE)
def test_the_table_knows_what_is_registered(name):
    """An upgrade that brings a new hook is looked at before it is used."""
    kinds, table = registered(name), dict(TABLE[name])
    if stacks.choose() is stacks.OPENMMLAB:
        table = {k: v for k, v in table.items() if k not in OF_ONEDL}
    assert sorted(kinds) == sorted(table)
    for key, verdict in table.items():
        kind = kinds[key]
        if verdict == BLIND:
            assert not looks_at_model(kind), key
        elif verdict == REFUSED:
            assert kind.__name__ in UNSUITED
        elif verdict == UNTRIED:
            continue
        elif verdict.startswith(ABSENT):
            package = verdict.removeprefix(ABSENT)
            assert importlib.util.find_spec(package) is None
        else:
            assert callable(globals()[verdict])
    if name == 'HOOKS':
        tested = {key.partition('/')[0] for key in AT_WORK}
        assert tested >= {k for k, v in table.items() if v == 'test_hooks'}


def test_nothing_else_is_refused():
    refused = {
        key.partition('.')[2]
        for table in TABLE.values()
        for key, verdict in table.items()
        if verdict == REFUSED
    }
    assert {*UNSUITED} == refused


# Models and configs


@MODELS.register_module()
class Probe(ImageClassifier):
    """A classifier with what hooks of other kinds of models ask for."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_lambda, self.epoch = 1.0, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def loss(self, inputs, data_samples):
        losses = super().loss(inputs, data_samples)
        queue = getattr(self.head.loss_module, 'queue', None)
        factor = self.loss_lambda + self.epoch + (queue is not None)
        return {k: v * factor for k, v in losses.items()}


@MODELS.register_module()
class Retriever(ImageClassifier):
    """Compares all features at once."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = super().forward(inputs, data_samples, mode)
        return dict(scores=out) if mode == 'tensor' else out

    def predict_all(self, feats, data_samples, num_images, num_texts):
        assert len(feats['scores']) == len(data_samples) == num_images
        samples = self.head._get_predictions(feats['scores'], data_samples)
        return samples, samples[:num_texts]


@MODELS.register_module()
class Renamed(TimmClassifier):
    """A model of timm's, as far as state dicts and mmpretrain can tell."""

    def __init__(self, data_preprocessor=None):
        super(TimmClassifier, self).__init__(
            data_preprocessor=data_preprocessor
        )
        self.model = nn.Sequential()
        for name, layer in dict(
            conv=nn.Conv2d(3, 4, 3, 2),
            bn=nn.BatchNorm2d(4),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(4, 6),
        ).items():
            self.model.add_module(name, layer)
        self.loss_module = MODELS.build(dict(type='CrossEntropyLoss'))
        self._register_state_dict_hook(self._remove_state_dict_prefix)
        self._register_load_state_dict_pre_hook(self._add_state_dict_prefix)


@pytest.fixture
def classifier(shapes_root, tmp_path, monkeypatch):
    """Read the plain config of a small classifier; keywords override it."""
    monkeypatch.setattr(mmengine_runner, 'collect_env', dict)  # it asks gcc
    with DefaultScope.overwrite_default_scope('mmpretrain'):

        def read(**overrides):
            cfg = read_shapes('single_student')
            for split in ('train', 'val', 'test'):
                loader = cfg[f'{split}_dataloader']
                loader.update(
                    batch_size=8, num_workers=0, persistent_workers=False
                )
                loader.dataset.data_root = str(shapes_root)
                loader.dataset.update(indices=24, serialize_data=False)
            cfg.train_cfg.update(max_epochs=2, val_interval=1)
            cfg.param_scheduler = []
            cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.1)
            cfg.merge_from_dict(overrides)
            cfg.work_dir = str(tmp_path)
            return cfg

        yield read


def distilled(plain, tmp_path, tap='head.fc', weight=0, **more):
    """The distillation of a plain config by a model of its kind."""
    cfg = copy.deepcopy(plain)
    student = cfg.model
    teacher = copy.deepcopy(cfg.model)
    if 'data_preprocessor' in cfg:
        teacher.setdefault('data_preprocessor', cfg.data_preprocessor)
    scope = cfg.default_scope
    file = tmp_path / 'teacher.pth'
    with forked_rng(), DefaultScope.overwrite_default_scope(scope):
        torch.manual_seed(1)
        model = registry.MODELS.build(dict(teacher, _scope_=scope))
        torch.save({'state_dict': model.state_dict()}, file)
    cfg.model = dict(
        type='mmrazor.FeatureMimicDistill',
        architecture=dict(student, _scope_=scope),
        teacher=dict(teacher, _scope_=scope),
        teacher_ckpt=str(file),
        distiller=dict(
            type='LSHFMDistiller',
            taps=dict(one=tap),
            losses=dict(one=[dict(LOSS[0], loss_weight=weight)]),
        ),
    )
    cfg.merge_from_dict(more)
    return cfg


def trained(cfg, name, resume=None, hook=None):
    """Train in a folder of its own; call a function before each step."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir += f'/{name}'
    cfg.experiment_name = cfg.work_dir
    cfg.resume, cfg.load_from = resume is not None, resume
    kind = registry.RUNNERS.get(cfg.get('runner_type', 'Runner'))
    runner = kind.from_cfg(cfg)
    if hook is not None:
        last = Hook()
        last.before_train_iter = lambda runner, *_, **__: hook(runner)
        runner.register_hook(last, 'LOWEST')
    runner.train()
    return runner


def left_behind(runner, name=None):
    """The student in the weights of the last checkpoint, and its average."""
    name = name or runner.message_hub.get_info('last_ckpt')
    content = torch.load(name, weights_only=False)
    distils = any('architecture.' in key for key in content['state_dict'])
    return {
        f'{part}.{key.replace("architecture.", "")}': value
        for part in ('state_dict', 'ema_state_dict')
        for key, value in content.get(part, {}).items()
        if 'architecture.' in key or not distils
    }


def assert_same(one, other):
    one.pop('ema_state_dict.steps', None)
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


def differ(one, other):
    return any(not torch.equal(v, other[k]) for k, v in one.items())


# Hooks

PROBE = {'model.type': 'Probe'}
AT_WORK = {
    'mmengine.EMAHook': dict(momentum=0.5),
    'mmengine.EMAHook/buffers': dict(momentum=0.5, update_buffers=True),
    'mmengine.EMAHook/later': dict(momentum=0.5, begin_epoch=2),
    'mmpretrain.EMAHook': dict(
        ema_type='StochasticWeightAverage', evaluate_on_origin=True
    ),
    'mmengine.SyncBuffersHook': {},
    'mmpretrain.DenseCLHook': dict(start_iters=2, **PROBE),
    'mmpretrain.PreciseBNHook': dict(num_samples=16),
    'mmpretrain.SetAdaptiveMarginsHook': {
        'model.head': dict(
            type='ArcFaceClsHead', num_classes=6, in_channels=32
        )
    },
    'mmpretrain.SwAVHook': {
        'batch_size': 8,
        'epoch_queue_starts': 1,
        'queue_length': 16,
        'frozen_layers_cfg': {'head': 2},
        **PROBE,
    },
    'mmpretrain.SwitchRecipeHook': dict(
        schedule=[
            dict(action_epoch=1, batch_augments=dict(augments='Mixup')),
            dict(
                action_epoch=2,
                batch_augments=None,
                loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
            ),
        ]
    ),
    'mmpretrain.WarmupParamHook': dict(
        param_name='loss_weight',
        module_name='head.loss_module',
        warmup_epochs=1,
    ),
    'mmpretrain.SimSiamHook': {
        'fix_pred_lr': True,
        'lr': 0.01,
        'optim_wrapper.paramwise_cfg': dict(
            custom_keys=dict(head=dict(fix_lr=True))
        ),
    },
    'mmdet.SetEpochInfoHook': PROBE,
}
NO_EFFECT = ('mmengine.SyncBuffersHook',)  # without a second process
KEEP_STATE = ('EMAHook', 'SwAVHook', 'SwitchRecipeHook')


@pytest.mark.parametrize('hook', AT_WORK)
def test_hooks(hook, classifier, tmp_path):
    """Also after a resume in the middle, where the hook keeps a state."""
    arguments = dict(AT_WORK[hook], type=hook.partition('/')[0])
    overrides = {x: arguments.pop(x) for x in [*arguments] if '.' in x}
    cfg = classifier(**overrides)
    cfg.train_cfg.val_interval = 2
    tap = 'neck' if 'Margins' in hook else 'head.fc'
    without = left_behind(trained(cfg, 'without'))
    cfg.custom_hooks = [arguments]
    plain = trained(cfg, 'plain')
    expected = left_behind(plain)
    if hook not in NO_EFFECT:
        assert expected.keys() != without.keys() or differ(expected, without)
    ours = distilled(cfg, tmp_path, tap)
    own = [dict(type=x) for x in training.DISTILL_HOOKS]
    ours.custom_hooks = [*ours.custom_hooks, *own]
    assert_same(expected, left_behind(trained(ours, 'ours')))
    if not any(name in hook for name in KEEP_STATE):
        return
    resumed = [
        left_behind(trained(x, f'{name}2', f'{tmp_path}/{name}/epoch_1.pth'))
        for x, name in ((cfg, 'plain'), (ours, 'ours'))
    ]
    assert_same(*resumed)


@pytest.mark.parametrize(
    ('setting', 'layers'),
    [
        ('activation_checkpointing', ['backbone.layer1']),
        ('efficient_conv_bn_eval', ['backbone']),
    ],
)
def test_settings_that_name_layers(setting, layers, classifier, tmp_path):
    cfg = classifier(**{setting: layers})
    assert_same(
        left_behind(trained(cfg, 'plain')),
        left_behind(trained(distilled(cfg, tmp_path), 'ours')),
    )


def test_a_tap_without_gradient_inside_a_checkpoint(classifier, tmp_path):
    """Torch's checkpoints run a layer twice, the first time without."""
    cfg = classifier(activation_checkpointing=['backbone.layer1'])
    tap = dict(layer='backbone.layer1.0.conv1', record='output')
    with pytest.raises(ConfigError, match='has no gradient to the student'):
        trained(added(distilled(cfg, tmp_path, tap, weight=1)), 'ours')


def test_what_an_export_takes_of_an_average(classifier, tmp_path):
    """The average, as MMEngine saves it: what was evaluated is exported."""
    cfg = classifier(custom_hooks=[dict(type='EMAHook', momentum=0.5)])
    ours = distilled(cfg, tmp_path, weight=1)
    runner = trained(ours, 'ours')
    [ema] = [x for x in runner.hooks if type(x).__name__ == 'EMAHook']
    average = ema.ema_model.module.student.state_dict()
    file = runner.message_hub.get_info('last_ckpt')
    export_student(file, str(tmp_path / 'student.pth'))
    exported = torch.load(tmp_path / 'student.pth')['state_dict']
    assert_same(exported, average)
    assert differ(exported, runner.model.student.state_dict())
    cfg.pop('custom_hooks')
    cfg.load_from = str(tmp_path / 'student.pth')
    cfg.experiment_name = 'exported'
    tested = Runner.from_cfg(cfg).test()
    last = runner.message_hub.get_scalar('val/accuracy/top1').current()
    assert tested['accuracy/top1'] == last


class Copies(Hook):
    """Copies the model at each step, as averaging hooks of others do."""

    priority = 'LOWEST'

    def after_train_iter(self, runner, *args, **kwargs):
        self.copy = copy.deepcopy(runner.model)


def added(cfg):
    """A config with what the train tool adds."""
    args = Namespace(
        config='a.py', work_dir=cfg.work_dir, resume=None, cfg_options=None
    )
    training.prepare_training(args, cfg)
    cfg.merge_from_dict(args.cfg_options)
    return cfg


def test_a_copy_amid_training_is_one_of_its_own(classifier, tmp_path):
    cfg = added(distilled(classifier(), tmp_path, weight=1))
    cfg.work_dir += '/ours'
    cfg.experiment_name = 'copies'
    runner = Runner.from_cfg(cfg)
    copies = Copies()
    runner.register_hook(copies)
    runner.train()
    assert_same(copies.copy.state_dict(), runner.model.state_dict())
    assert copies.copy.teacher is runner.model.teacher
    assert copies.copy.architecture is not runner.model.architecture


def test_an_average_beside_a_calibrated_bias(classifier, tmp_path):
    """custom_hooks of a config replace those of its base, calibration too."""
    cfg = distilled(classifier(), tmp_path, weight=1)
    cfg.model.distiller.losses.one = [
        dict(type='LSHLoss', num_hashes=8, std=1.0, bias='median')
    ]
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.5)]
    model = trained(added(cfg), 'ours').model
    assert model.distiller.distill_losses.loss_one_lsh.bias.abs().sum() > 0


def test_mimicking_fades(classifier, tmp_path):
    """Its losses, against the loss itself; an iteration is a third."""
    cfg = distilled(classifier(), tmp_path, weight=1)
    cfg.train_cfg.update(max_epochs=3, val_interval=3)
    cfg.custom_hooks = [dict(type='FadeDistillHook', begin=1, end=2)]
    cfg.work_dir = cfg.experiment_name = str(tmp_path / 'fades')
    runner = Runner.from_cfg(cfg)
    distiller, factors = runner.model.distiller, []

    def observe(values, compared):
        (level,) = compared['one'].levels
        ((name, loss),) = distiller.distill_losses.items()
        whole = loss(level.student, level.teacher)
        factors.append(float(values[name] / whole))

    distiller.observers.append(observe)
    runner.train()
    assert factors == pytest.approx([1, 1, 1, 1, 2 / 3, 1 / 3])
    assert runner.model.distillation_stopped


def test_mimicking_fades_by_iterations(classifier, tmp_path):
    cfg = distilled(classifier(), tmp_path, weight=1)
    cfg.train_cfg = dict(by_epoch=False, max_iters=5, val_interval=5)
    fade = dict(type='FadeDistillHook', end=4, by_epoch=False)
    cfg.custom_hooks = [fade]
    seen = []
    runner = trained(
        cfg, 'fades', hook=lambda x: seen.append(x.model.distiller.strength)
    )
    assert seen == [1, 0.75, 0.5, 0.25, 0]
    assert runner.model.distillation_stopped


@pytest.mark.parametrize(
    ('given', 'line'),
    [
        (dict(end=2, begin=2), 'end: must be later than begin, which is 2'),
        (dict(end=0), 'FadeDistillHook.end: must be an int >= 1, but got 0'),
        (dict(end=2, begin=-1), 'FadeDistillHook.begin: must be an int >= 0'),
    ],
)
def test_a_fade_has_a_length(given, line):
    with pytest.raises(ConfigError, match=line):
        registry.HOOKS.build(dict(type='FadeDistillHook', **given))


@pytest.mark.parametrize(
    'stop',
    [
        dict(type='mmrazor.StopDistillHook', stop_epoch=1),
        dict(type='FadeDistillHook', end=1),
    ],
    ids=['at once', 'fading'],
)
def test_mimicking_stops(stop, classifier, tmp_path):
    """And the student goes on as in plain training."""
    cfg = distilled(classifier(), tmp_path, weight=1)
    cfg.custom_hooks = [
        stop,
        dict(type='lshfm_mm.hooks.ExactResumeHook'),
    ]
    runner = trained(cfg, 'ours')
    assert runner.model.distillation_stopped
    plain = classifier()
    whole = Config(dict(plain, model=cfg.model.architecture))
    start = tmp_path / 'ours/epoch_1.pth'
    export_student(str(start), str(tmp_path / 'half.pth'))
    half = torch.load(tmp_path / 'half.pth')['state_dict']
    assert differ(half, runner.model.student.state_dict())
    assert_same(
        left_behind(runner),
        left_behind(trained(cfg, 'again', str(start))),
    )
    exported = plain_config(cfg)
    assert not exported.custom_hooks
    assert exported.model.type == whole.model.type


def test_norms_of_two_processes(classifier, tmp_path, monkeypatch):
    """They are loaded alone: a checkpoint of nothing else would be wrong."""
    monkeypatch.setattr(sync_norm_hook, 'get_dist_info', lambda: (0, 2))
    monkeypatch.setattr(
        sync_norm_hook,
        'all_reduce_dict',
        lambda state, op: {k: v + 1 for k, v in state.items()},
    )
    cfg = classifier()
    cfg.model.backbone = RATES['swin'][0]()['backbone']
    cfg.model.neck = dict(type='LinearNeck', in_channels=32, out_channels=32)
    cfg = distilled(cfg, tmp_path)
    model = registry.MODELS.build(dict(cfg.model, _scope_='mmrazor'))
    before = copy.deepcopy(model.state_dict())
    wrapper = nn.Module()
    wrapper.module = model
    sync_norm_hook.SyncNormHook().before_val_epoch(Namespace(model=wrapper))
    after = model.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    norm = 'architecture.neck.norm'
    assert changed == {f'{norm}.{x}' for x in model.neck.norm.state_dict()}
    assert len(changed) < 0.1 * len(before)
    alien = {'conv.weight': torch.zeros(1)}
    with pytest.raises(ConfigError, match='load_from: of its 1 keys .* 0 fit'):
        model.load_state_dict(alien, strict=False)


def test_classes_are_counted(classifier, tmp_path):
    cfg = classifier(custom_hooks=[dict(type='ClassNumCheckHook')])
    ours = distilled(cfg, tmp_path)
    trained(ours, 'right')
    ours.model.architecture.head.num_classes = 7
    with pytest.raises(AssertionError, match='num_classes'):
        trained(ours, 'wrong')
    hook = NumClassCheckHook()
    counts = dict(cfg.data_preprocessor, num_classes=7)
    ours.model.architecture.data_preprocessor = counts
    model = registry.MODELS.build(dict(ours.model, _scope_='mmrazor'))
    for number in (6, 7):
        meta = dict(classes=('a',) * number)
        loader = Namespace(dataset=Namespace(metainfo=meta))
        runner = Namespace(model=model, train_dataloader=loader)
        if number == 7:
            hook.before_train_epoch(runner)
        else:
            with pytest.raises(AssertionError, match=r'num_classes` \(7\)'):
                hook.before_train_epoch(runner)


def test_a_search_of_receptive_fields(classifier, tmp_path):
    """The hook wraps nothing by itself, and writes what it has: the same."""
    search = dict(
        step=0,
        max_step=9,
        search_interval=1,
        exp_rate=0.5,
        init_alphas=0.01,
        mmin=1,
        mmax=8,
        num_branches=2,
        skip_layer=None,
    )
    hook = dict(type='mmengine.RFSearchHook', mode='search')
    cfg = classifier()
    cfg.custom_hooks = [dict(hook, config=dict(search=search))]
    files = []
    for name, one in (('plain', cfg), ('ours', distilled(cfg, tmp_path))):
        trained(one, name)
        files.append(
            json.loads(
                (
                    tmp_path / name / 'local_search_config_step2.json'
                ).read_text()
            )
        )
    assert files[0] == files[1]


class Graphs:
    """Of a visualizer."""

    def add_graph(self, model, data):
        self.names = [name for name, _ in model.named_parameters()]


def test_the_graph_is_the_students(classifier, tmp_path):
    cfg = distilled(classifier(), tmp_path)
    model = registry.MODELS.build(dict(cfg.model, _scope_='mmrazor'))
    graphs = Graphs()
    hook = registry.HOOKS.build(dict(type='mmengine.NaiveVisualizationHook'))
    hook.before_train(Namespace(model=model, visualizer=graphs))
    assert graphs.names == [x for x, _ in model.student.named_parameters()]


def test_resources_are_the_students(classifier, tmp_path):
    cfg = classifier()
    estimator = dict(flops_params_cfg=dict(input_shape=(1, 3, 32, 32)))
    hook = registry.HOOKS.build(
        dict(
            type='mmengine.EstimateResourcesHook',
            _scope_='mmrazor',
            interval=1,
            estimator_cfg=estimator,
        )
    )
    lines = []
    for one in (cfg, distilled(cfg, tmp_path)):
        runner = Namespace(
            model=registry.MODELS.build(dict(one.model, _scope_='mmpretrain')),
            distributed=False,
            epoch=1,
            logger=Namespace(info=lines.append),
        )
        hook.after_val_epoch(runner)
    assert lines[0] == lines[1] != ''


def test_augmented_tests(classifier, tmp_path):
    """The model is wrapped, and what it says of images is the student's."""
    cfg = classifier()
    ours = distilled(cfg, tmp_path)
    hook = dict(
        type='mmengine.PrepareTTAHook',
        tta_cfg=dict(type='mmpretrain.AverageClsScoreTTA'),
    )
    scores = []
    for name, one in (('plain', cfg), ('ours', ours)):
        one.test_dataloader.dataset.pipeline[-1:] = [
            dict(
                type='TestTimeAug',
                transforms=[
                    [dict(type='RandomFlip', prob=x) for x in (0.0, 1.0)],
                    [dict(type='PackInputs')],
                ],
            )
        ]
        one.custom_hooks = [hook]
        one.experiment_name = f'{tmp_path}{name}tta'
        one.test_dataloader.collate_fn = dict(type='pseudo_collate')
        runner = Runner.from_cfg(one)
        trained_state = torch.Generator().manual_seed(0)
        for parameter in runner.model.parameters():
            parameter.data = torch.randn(
                parameter.shape, generator=trained_state
            )
        scores.append(runner.test())
    assert scores[0] == scores[1] and scores[0]['accuracy/top1'] > 0


def test_maps_are_drawn(classifier, tmp_path):
    """By MMRazor's name of the student, and only that."""
    cfg = classifier()
    cfg.custom_hooks = [
        dict(
            type='mmrazor.RazorVisualizationHook',
            enabled=True,
            recorders=dict(
                neck=dict(
                    _scope_='mmrazor',
                    type='ModuleOutputs',
                    source='architecture.backbone.layer1',
                )
            ),
            mappings=dict(p=dict(recorder='neck')),
            out_dir='maps',
            is_overlaid=False,
        )
    ]
    cfg.visualizer = dict(type='mmdet.DetLocalVisualizer')  # it takes out_file
    trained(distilled(cfg, tmp_path), 'ours')
    assert list((tmp_path / 'ours').rglob('maps/*.jpg'))


# Loops


@pytest.mark.parametrize('runner', ['Runner', 'FlexibleRunner'])
@pytest.mark.parametrize('val', ['ValLoop', 'mmrazor.SelfDistillValLoop'])
def test_loops(runner, val, classifier, tmp_path):
    cfg = classifier()
    cfg.runner_type = runner
    cfg.train_cfg = dict(
        type='IterBasedTrainLoop', max_iters=3, val_interval=3
    )
    cfg.val_cfg = dict(type=val)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=3)
    runners = [
        trained(one, name)
        for name, one in (('plain', cfg), ('ours', distilled(cfg, tmp_path)))
    ]
    assert_same(*map(left_behind, runners))
    scores = [x.message_hub.log_scalars for x in runners]
    names = [{k for k in x if k.startswith('val/')} for x in scores]
    assert names[0] == names[1]
    key = next(x for x in names[0] if x.endswith('accuracy/top1'))
    assert key.startswith('val/student.') == val.startswith('mmrazor')
    assert scores[0][key].current() == scores[1][key].current()


def test_the_teacher_evaluated(classifier, tmp_path):
    """MMRazor's loop lends it the student's preprocessor; it keeps its own."""
    cfg = distilled(classifier(), tmp_path, weight=1)
    cfg.model.teacher.data_preprocessor = dict(
        cfg.data_preprocessor, mean=[9.0] * 3, std=[20.0] * 3
    )
    expected = left_behind(trained(cfg, 'student_alone'))
    cfg.val_cfg = dict(type='mmrazor.SingleTeacherDistillValLoop')
    runner = trained(cfg, 'both')
    assert_same(expected, left_behind(runner))
    teacher = classifier()
    teacher.model = cfg.model.teacher
    teacher.load_from = cfg.model.teacher_ckpt
    teacher.experiment_name = f'{tmp_path}teacher'
    alone = Runner.from_cfg(teacher).test()['accuracy/top1']
    scores = runner.message_hub.log_scalars
    assert scores['val/teacher.accuracy/top1'].current() == alone
    used = runner.val_loop.teacher.data_preprocessor
    assert used.mean.flatten().tolist() == [9.0] * 3
    assert 'val/accuracy/top1' in scores
    assert plain_config(cfg).val_cfg.type == 'ValLoop'


@pytest.mark.parametrize('kind', ['RetrievalValLoop', 'RetrievalTestLoop'])
def test_retrieval(kind, classifier, tmp_path):
    cfg = classifier(**{'model.type': 'Retriever'})
    scores = []
    for one in (cfg, distilled(cfg, tmp_path)):
        one.experiment_name = f'{tmp_path}{len(scores)}'
        runner = Runner.from_cfg(one)
        values = torch.Generator().manual_seed(0)
        for x in runner.model.parameters():
            x.data = torch.randn(x.shape, generator=values)
        loader = Runner.build_dataloader(one.val_dataloader)
        loader.dataset.img_size = len(loader.dataset)
        loader.dataset.text_size = 8
        loop = registry.LOOPS.build(
            dict(
                type=f'mmpretrain.{kind}',
                runner=runner,
                dataloader=loader,
                evaluator=runner.build_evaluator(one.val_evaluator),
            )
        )
        loop.evaluator.dataset_meta = loader.dataset.metainfo
        runner.call_hook('before_run')
        scores.append(loop.run())
    assert scores[0] == scores[1]
    assert {'i2t/accuracy/top1', 't2i/accuracy/top1'} <= {*scores[0]}


@pytest.mark.parametrize('name', UNSUITED)
def test_what_would_break_a_distillation_is_refused(
    name, classifier, tmp_path
):
    cfg = distilled(classifier(), tmp_path)
    if name.endswith('Hook'):
        cfg.custom_hooks, field = [dict(type=name)], r'custom_hooks\[0\]'
    elif name.endswith('Loop'):
        part = (
            'train_cfg' if 'Train' in name or 'Search' in name else 'val_cfg'
        )
        cfg[part] = dict(type=f'mmrazor.{name}')
        field = f'{part}.type'
    elif name.endswith('Strategy'):
        cfg.strategy, field = dict(type=name), 'strategy.type'
    else:
        field = 'optim_wrapper.constructor'
        cfg.optim_wrapper.constructor = name
    with pytest.raises(ConfigError, match=f'^{field}: {name} ') as error:
        added(cfg)
    assert '\n' not in str(error.value)
    plain = Config(dict(cfg, model=classifier().model))
    plain.work_dir = cfg.work_dir
    added(plain)  # none of our business


def test_an_average_and_the_teachers_validation_are_refused(
    classifier, tmp_path
):
    cfg = distilled(classifier(), tmp_path)
    cfg.custom_hooks = [dict(type='EMAHook')]
    cfg.val_cfg = dict(type='mmrazor.SingleTeacherDistillValLoop')
    with pytest.raises(ConfigError, match='val_cfg.type: SingleTeacher'):
        added(cfg)


# Optimizers


def convnext(**more):
    """Of mmpretrain's backbones, in mmdet's RetinaNet."""
    model = mmdet_config('retinanet/retinanet_r18_fpn_1x_coco.py').model
    model.backbone = dict(
        type='mmpretrain.ConvNeXt',
        arch=dict(depths=[1, 1, 4, 1], channels=[4, 8, 16, 32]),
        out_indices=[0, 1, 2, 3],
        gap_before_final_norm=False,
    )
    model.neck.update(in_channels=[4, 8, 16, 32], out_channels=8)
    model.bbox_head.update(in_channels=8, feat_channels=8, num_classes=6)
    return dict(model, _scope_='mmdet')


def classified(**backbone):
    return dict(
        _scope_='mmpretrain',
        type='ImageClassifier',
        backbone=backbone,
        head=dict(type='LinearClsHead', num_classes=6, in_channels=32),
    )


def of_vit(kind, **more):
    size = dict(embed_dims=32, num_layers=3, num_heads=2)
    size['feedforward_channels'] = 32
    return classified(type=kind, arch=size, img_size=32, patch_size=16, **more)


def of_detr():
    model = mmdet_config(
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
    ).model
    model.backbone.update(depth=18, base_channels=4, init_cfg=None)
    model.neck.in_channels = [8, 16, 32]
    return dict(model, _scope_='mmdet')


DECAY = dict(decay_rate=0.7, num_layers=6)
NO_DECAY = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0)
BY_LAYER = 'mmpretrain.LearningRateDecayOptimWrapperConstructor'
BY_STAGE = 'mmdet.LearningRateDecayOptimizerConstructor'
RATES = {
    'convnext': (
        convnext,
        BY_STAGE,
        dict(DECAY, decay_type='layer_wise'),
    ),
    'convnext by stage': (
        convnext,
        BY_STAGE,
        dict(DECAY, decay_type='stage_wise'),
    ),
    'swin': (
        lambda: classified(
            type='SwinTransformer',
            arch=dict(
                embed_dims=4, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2]
            ),
            img_size=64,
        ),
        BY_LAYER,
        dict(
            NO_DECAY,
            layer_decay_rate=0.8,
            custom_keys={
                '.absolute_pos_embed': dict(decay_mult=0.0),
                '.relative_position_bias_table': dict(decay_mult=0.0),
            },
        ),
    ),
    'vit': (
        lambda: of_vit('VisionTransformer', out_type='avg_featmap'),
        BY_LAYER,
        dict(
            layer_decay_rate=0.5,
            custom_keys={
                '.ln': dict(decay_mult=0.0),
                '.bias': dict(decay_mult=0.0),
                '.cls_token': dict(decay_mult=0.0),
                '.pos_embed': dict(decay_mult=0.0),
            },
        ),
    ),
    'convnext of mmpretrain': (
        lambda: classified(
            type='ConvNeXt',
            arch=dict(depths=[1, 1, 4, 1], channels=[4, 8, 16, 32]),
        ),
        BY_LAYER,
        dict(NO_DECAY, layer_decay_rate=0.9),
    ),
    'deformable detr': (
        of_detr,
        'DefaultOptimWrapperConstructor',
        dict(
            custom_keys={
                'backbone': dict(lr_mult=0.1),
                'sampling_offsets': dict(lr_mult=0.2),
                '.level_embed': dict(lr_mult=0.3),
            },
            norm_decay_mult=0.0,
            bypass_duplicate=True,
        ),
    ),
}


def groups(model, own, constructor, paramwise):
    """Settings of each parameter, by the names that ``own`` gives it."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            constructor=constructor,
            paramwise_cfg=paramwise,
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.5),
        ),
    )
    names = {id(x): name for name, x in own.named_parameters()}
    assert len(names) == len([*own.parameters()])
    return {
        names.get(id(x), 'beside'): {
            key: value
            for key, value in group.items()
            if key not in ('params', 'param_names', 'param_name')
        }
        for group in wrapper.optimizer.param_groups
        for x in group['params']
    }


@pytest.mark.parametrize('kind', RATES)
def test_rates(kind):
    """The same groups and rates; a connector gets the full rate."""
    make, constructor, paramwise = RATES[kind]
    student = registry.MODELS.build(make())
    teacher = registry.MODELS.build(make())
    layer = {
        'swin': 'backbone.patch_embed.projection',
        'vit': 'backbone.patch_embed.projection',
        'deformable detr': 'backbone.layer1',
    }.get(kind, 'backbone.downsample_layers.0')
    width = {'vit': 32}.get(kind, 4)
    model = registry.MODELS.build(
        dict(
            _scope_='mmrazor',
            type='FeatureMimicDistill',
            architecture=student,
            teacher=teacher,
            distiller=dict(
                type='LSHFMDistiller',
                taps=dict(early=dict(layer=layer, record='output')),
                losses=dict(early=LOSS),
                connectors=dict(
                    early=dict(
                        type='TorchNNConnector',
                        module_name='Conv2d',
                        module_args=dict(
                            in_channels=width,
                            out_channels=width,
                            kernel_size=1,
                        ),
                    )
                ),
            ),
        )
    )
    expected = groups(student, student, constructor, paramwise)
    found = groups(model, student, constructor, paramwise)
    beside = found.pop('beside')
    assert found == expected
    assert beside['lr'] == 1.0
    assert len({x['lr'] for x in expected.values()}) > 2


# Whole configs


def data_of_shapes(cfg, shapes_root):
    """The data of a detector's config, with its own pipelines, at 64 px."""
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
        part = loader.dataset
        part = part.get('dataset', part)
        part.data_root = str(shapes_root)
        name = 'train' if split == 'train' else 'val'
        part.ann_file = f'annotations/{name}.json'
        part.data_prefix = dict(img=f'{name}/')
        part.metainfo = dict(classes=CLASSES)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = str(shapes_root / 'annotations/val.json')


@pytest.fixture
def yolox(shapes_root, tmp_path):
    """Mmdet's config, whole: only widths, sizes and epochs are smaller."""
    text = mmdet_config('yolox/yolox_s_8xb8-300e_coco.py').pretty_text
    text = text.replace('640', '64').replace('-320', '-32')
    cfg = Config.fromstring(text, '.py')
    data_of_shapes(cfg, shapes_root)
    cfg.model.backbone.widen_factor = 0.0625
    cfg.model.neck.update(in_channels=[16, 32, 64], out_channels=8)
    cfg.model.bbox_head.update(in_channels=8, feat_channels=8, num_classes=6)
    resize = cfg.model.data_preprocessor.batch_augments[0]
    resize.update(random_size_range=(64, 96), interval=1)
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 1
    cfg.custom_hooks[0].num_last_epochs = 0  # it takes one more
    cfg.custom_hooks[2].momentum = 0.5
    warmup, cosine, constant = cfg.param_scheduler
    warmup.end = cosine.begin = 1
    cosine.update(end=2, T_max=2)
    constant.update(begin=1, end=2)
    cfg.randomness = dict(seed=0)
    cfg.work_dir = str(tmp_path)
    return cfg


def test_yolox_whole(yolox, tmp_path):
    """Its L1 loss appears when it should, also after a resume."""
    tap = dict(layer='neck', record='output')
    ours = distilled(yolox, tmp_path, tap)
    runners = [trained(x, n) for x, n in ((yolox, 'plain'), (ours, 'ours'))]
    assert_same(*map(left_behind, runners))
    logs = [x.message_hub.log_scalars for x in runners]
    counts = [
        log[f'train/{key}loss_l1'].data[0].size
        for log, key in zip(logs, ('', 'student.'), strict=True)
    ]
    total = logs[1]['train/student.loss_cls'].data[0].size
    assert counts[0] == counts[1] == total // 2 > 0
    again = trained(ours, 'again', str(tmp_path / 'ours/epoch_1.pth'))
    assert 'train/student.loss_l1' in again.message_hub.log_scalars
    assert again.model.bbox_head is again.model.student.bbox_head
    plain = plain_config(ours)
    assert plain.model.type == 'YOLOX'
    assert plain.custom_hooks == yolox.custom_hooks


@pytest.mark.slow
def test_yolox_in_two_processes(yolox, tmp_path):
    """With workers that stay, and norms averaged before the evaluation."""
    yolox.train_dataloader.update(
        batch_size=3, num_workers=1, persistent_workers=True
    )
    ours = distilled(yolox, tmp_path, dict(layer='neck', record='output'), 1)
    ours.custom_imports = dict(imports=['lshfm_mm'])
    first, second = in_two(tmp_path, dict(ours=ours))['ours']
    for one in (first, second):
        switched = ['student.loss_l1' in x for x in one['losses']]
        assert switched == [False, False, True, True]
    assert_same(first['state'], second['state'])


# State dicts


@pytest.mark.parametrize('hooks', [[], [dict(type='EMAHook', momentum=0.5)]])
def test_a_student_that_renames_its_weights(hooks, classifier, tmp_path):
    """TimmClassifier's keys: train, resume, export, test, and an average."""
    cfg = classifier(model=dict(_delete_=True, type='Renamed'))
    cfg.data_preprocessor.type = 'ClsDataPreprocessor'
    ours = distilled(cfg, tmp_path, 'model.fc')
    if not hooks:  # MMEngine's average of such a model alone cannot be saved
        assert_same(
            left_behind(trained(cfg, 'plain')),
            left_behind(trained(ours, 'ours')),
        )
    ours.model.distiller.losses.one[0].loss_weight = 1
    ours.custom_hooks = [*hooks, dict(type='lshfm_mm.hooks.ExactResumeHook')]
    runner = trained(ours, 'ours')
    again = trained(ours, 'again', str(tmp_path / 'ours/epoch_1.pth'))
    assert_same(left_behind(runner), left_behind(again))
    file = runner.message_hub.get_info('last_ckpt')
    assert (
        'architecture.conv.weight'
        in torch.load(file, weights_only=False)['state_dict']
    )
    export_student(file, str(tmp_path / 'student.pth'))
    plain = registry.MODELS.build(dict(cfg.model, _scope_='mmpretrain'))
    plain.load_state_dict(torch.load(tmp_path / 'student.pth')['state_dict'])
    if not hooks:
        assert_same(plain.state_dict(), runner.model.student.state_dict())
    cfg.load_from = str(tmp_path / 'student.pth')
    cfg.experiment_name = f'{tmp_path}exported'
    tested = Runner.from_cfg(cfg).test()
    last = runner.message_hub.get_scalar('val/accuracy/top1').current()
    assert tested['accuracy/top1'] == last
