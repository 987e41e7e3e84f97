"""What we take for granted of MMRazor, mmdet, MMEngine, mmpretrain and torch.

Each test is one assumption, named as such. Where an upgrade breaks it, it
fails here, and says which modules of ours lean on it.
"""

import functools
import io
import os
import pickle
from collections import OrderedDict
from importlib import metadata
from inspect import Parameter, signature
from types import SimpleNamespace

import mmengine
import mmengine.runner.checkpoint as mm_checkpoint
import numpy as np
import pytest
import torch
from mmdet.models import SingleStageDetector
from mmdet.models.losses import (
    GHMC,
    CrossEntropyLoss,
    FocalLoss,
    QualityFocalLoss,
    SeesawLoss,
    VarifocalLoss,
)
from mmdet.models.roi_heads import (
    CascadeRoIHead,
    HybridTaskCascadeRoIHead,
    SCNetRoIHead,
    StandardRoIHead,
)
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.config.utils import _get_cfg_metainfo, _get_package_and_cfg_path
from mmengine.dataset import BaseDataset, DefaultSampler, InfiniteSampler
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.hub import get_config
from mmengine.logging import HistoryBuffer, MessageHub, MMLogger
from mmengine.model import BaseModel, ExponentialMovingAverage
from mmengine.model.base_model import ImgDataPreprocessor
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.registry import MODELS as ROOT
from mmengine.runner import (
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    Runner,
    find_latest_checkpoint,
)
from mmengine.runner.loops import _InfiniteDataloaderIterator
from mmengine.structures import InstanceData
from mmengine.utils import get_installed_path
from mmrazor.models.algorithms import SingleTeacherDistill
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.models.utils import add_prefix
from mmrazor.registry import MODELS
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint
from torch.utils.data import DataLoader

from lshfm_mm.cli import upstream
from lshfm_mm.utils.checkpoints import code_in

# Where the stacks differ, an assumption is stated for each.
ONEDL = any(x.name == 'onedl-mmengine' for x in metadata.distributions())


def used_by(*modules):
    """Say which modules of ours lean on what a test has found changed."""

    def decorate(test):
        @functools.wraps(test)
        def wrapped(*args, **kwargs):
            try:
                return test(*args, **kwargs)
            except Exception as error:
                raise AssertionError(
                    f'lshfm_mm: {", ".join(modules)} lean on this, and it '
                    f'holds no more: {error!r}'
                ) from error

        return wrapped

    return decorate


def names(function):
    """Names of its parameters that can be given by position."""
    kinds = Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD
    parameters = signature(function).parameters.values()
    return [x.name for x in parameters if x.kind in kinds]


def test_a_failure_names_our_module():
    @used_by('taps')
    def test():
        assert names(len) == ['nothing']

    with pytest.raises(AssertionError, match='lshfm_mm: taps lean on this'):
        test()


class Plain(BaseModel):
    """The least model of MMEngine."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.layer(inputs)


# MMRazor


def recorders(**kinds):
    kinds = {k: dict(type=x, source='layer') for k, x in kinds.items()}
    distiller = MODELS.build(
        dict(
            _scope_='mmrazor',
            type='ConfigurableDistiller',
            student_recorders=kinds,
        )
    )
    model = Plain()
    distiller.prepare_from_student(model)
    return distiller.student_recorders, model


@used_by('distillers', 'algorithms')
def test_recorders_keep_inputs_as_tuples_and_outputs_as_they_are():
    manager, model = recorders(x='ModuleInputs', y='ModuleOutputs')
    image = torch.ones(1, 2)
    with manager:
        output = model(image)
        model(image)
    inputs, outputs = (manager.get_recorder(k).data_buffer for k in 'xy')
    assert isinstance(inputs[0], tuple) and inputs[0][0] is image
    assert outputs[0] is output
    assert len(inputs) == len(outputs) == 2


@used_by('algorithms')
def test_recorders_are_empty_on_entry_and_full_after_leaving():
    manager, model = recorders(x='ModuleInputs')
    (recorder,) = manager.recorders.values()
    with manager:
        model(torch.ones(1, 2))
    model(torch.ones(1, 2))  # outside: not recorded
    assert len(recorder.data_buffer) == 1
    with manager:
        assert recorder.data_buffer == []
        recorder.data_buffer.extend([1])  # what was before, put back
        assert recorder.data_buffer == [1]
    recorder.reset_data_buffer()
    assert recorder.data_buffer == []


@used_by('distillers')
def test_a_distiller_computes_only_losses_with_mappings():
    distiller = ConfigurableDistiller(
        distill_losses=dict(loss_a=dict(type='L2Loss', _scope_='mmrazor'))
    )
    assert distiller.compute_distill_losses() == {}
    assert distiller.loss_forward_mappings == {}
    assert isinstance(distiller.distill_losses['loss_a'], nn.Module)
    assert isinstance(distiller.connectors, nn.ModuleDict)


def algorithm():
    return SingleTeacherDistill(
        architecture=Plain(),
        teacher=Plain(),
        distiller=dict(type='ConfigurableDistiller', _scope_='mmrazor'),
    )


@used_by('algorithms')
def test_the_algorithm_registers_its_teacher_as_a_submodule():
    made = algorithm()
    assert 'teacher' in made._modules
    assert made.student is made.architecture
    assert made.distillation_stopped is False
    assert made.calculate_student_loss is True


@used_by('algorithms')
def test_the_algorithm_takes_the_students_data_preprocessor():
    made = algorithm()
    assert made.data_preprocessor is made.architecture.data_preprocessor


@used_by('algorithms')
def test_a_property_does_not_keep_a_module_from_being_registered():
    class Host(nn.Module):
        teacher = property(lambda self: 'guest')

    host = Host()
    host.teacher = nn.Linear(1, 1)
    assert 'teacher' in host._modules
    assert host.teacher == 'guest'


@used_by('algorithms')
def test_prefixes_keep_lists_and_the_word_loss():
    given = {'loss_rpn': [1, 2], 'acc': 3}
    assert add_prefix(given, 'student') == {
        'student.loss_rpn': [1, 2],
        'student.acc': 3,
    }


@used_by('teacher', 'taps', 'configs')
def test_mmrazors_registry_finds_models_of_other_scopes():
    for name in ('mmdet.FasterRCNN', 'mmpretrain.ImageClassifier'):
        assert MODELS.get(name).__name__ == name.split('.')[1]
    with ROOT.switch_scope_and_registry('mmdet') as registry:
        assert registry.scope == 'mmdet'
        assert registry.get('FasterRCNN') is not None
        assert registry.get('ImageClassifier') is None


@used_by('hooks', 'necks', 'backbones')
def test_what_is_in_the_root_registry_is_found_from_every_scope():
    import mmdet.registry
    import mmpretrain.registry

    for package in (mmdet, mmpretrain):
        found = package.registry.HOOKS.get('LSHCalibrationHook')
        assert found is HOOKS.get('LSHCalibrationHook') is not None
        assert package.registry.MODELS.get('GlobalMaxPooling') is not None


# mmdet


@used_by('algorithms')
@pytest.mark.parametrize(
    ('head', 'expected'),
    [
        (StandardRoIHead, ['x', 'rois']),
        (CascadeRoIHead, ['stage', 'x', 'rois']),
        (HybridTaskCascadeRoIHead, ['stage', 'x', 'rois', 'semantic_feat']),
        (SCNetRoIHead, ['stage', 'x', 'rois', 'semantic_feat', 'glbctx_feat']),
    ],
)
def test_roi_heads_run_their_box_head_on_given_rois(head, expected):
    assert names(head._bbox_forward)[1:][: len(expected)] == expected


def box_head(**kwargs):
    return Shared2FCBBoxHead(
        in_channels=4, fc_out_channels=8, num_classes=3, **kwargs
    )


@used_by('algorithms', 'calibration')
def test_a_roi_extractor_gets_the_rois_as_its_second_argument():
    head = StandardRoIHead(
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=1),
            out_channels=4,
            featmap_strides=[4],
        ),
        bbox_head=dict(
            type='Shared2FCBBoxHead',
            in_channels=4,
            fc_out_channels=8,
            num_classes=3,
        ),
    )
    calls = []
    head.bbox_roi_extractor.register_forward_hook(
        lambda module, inputs, output: calls.append(inputs)
    )
    rois = torch.tensor([[0.0, 0, 0, 8, 8]])
    head._bbox_forward((torch.ones(1, 4, 8, 8),), rois)
    assert calls[0][1] is rois
    assert isinstance(head.bbox_head.fc_cls, nn.Linear)


@used_by('algorithms (in_step)')
def test_without_rois_mmdet_leaves_its_class_loss_out():
    none = torch.zeros(0)
    losses = box_head().loss(
        torch.zeros(0, 4, requires_grad=True),
        torch.zeros(0, 12, requires_grad=True),
        torch.zeros(0, 5),
        none.long(),
        none,
        torch.zeros(0, 4),
        torch.zeros(0, 4),
    )
    assert 'loss_bbox' in losses and 'loss_cls' not in losses


@used_by('distillers (foreground)', 'samples')
def test_the_background_is_the_class_behind_the_last():
    labels, *_ = box_head()._get_targets_single(
        torch.zeros(1, 4),
        torch.zeros(2, 4),
        torch.zeros(1, 4),
        torch.tensor([2]),
        SimpleNamespace(pos_weight=-1),
    )
    assert labels.tolist() == [2, 3, 3]


@used_by('taps (LabelsRecorder)')
@pytest.mark.parametrize(
    'loss',
    [CrossEntropyLoss, FocalLoss, GHMC, QualityFocalLoss, SeesawLoss]
    + [VarifocalLoss],
)
def test_class_losses_get_labels_second_and_weights_third(loss):
    _, _, labels, weights, *_ = names(loss.forward)
    assert labels in ('target', 'label', 'labels')
    assert 'weight' in weights


@used_by('samples (class_confidence)', 'distillers')
def test_class_losses_tell_what_their_scores_mean():
    assert CrossEntropyLoss().use_sigmoid is False
    assert FocalLoss().use_sigmoid is True
    seesaw = SeesawLoss(num_classes=2)
    assert seesaw.custom_activation
    scores = seesaw.get_activation(torch.zeros(1, 4))
    assert scores.shape[1] >= 2  # the foreground classes come first


@used_by('algorithms', 'pairing')
def test_a_dense_detector_gives_raw_scores_in_mode_tensor():
    cfg = get_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py').model
    cfg.backbone.update(base_channels=4, init_cfg=None)
    cfg.neck.update(in_channels=[4, 8, 16, 32], out_channels=8)
    cfg.bbox_head.update(in_channels=8, feat_channels=8, num_classes=2)
    model = MMDET_MODELS.build(cfg).eval()
    assert isinstance(model, SingleStageDetector)
    with torch.no_grad():
        scores, boxes = model(torch.zeros(1, 3, 64, 64), None, mode='tensor')
        levels = model.extract_feat(torch.zeros(1, 3, 64, 64))
    assert [x.shape[1] for x in scores] == [18] * 5  # 9 anchors, 2 classes
    assert [x.shape[2:] for x in scores] == [x.shape[2:] for x in levels]
    assert isinstance(model.bbox_head.loss_cls, nn.Module)


@used_by('execution (on_rois)')
def test_roi_align_can_be_that_of_torchvision():
    from mmcv.ops import RoIAlign

    layer = RoIAlign(7, sampling_ratio=1)
    assert layer.pool_mode == 'avg' and layer.use_torchvision is False
    rois = torch.tensor([[0.0, 0, 0, 8, 8]])
    image = torch.arange(64.0).view(1, 1, 8, 8)
    ours = layer(image, rois)
    layer.use_torchvision = True
    torch.testing.assert_close(layer(image, rois), ours)


@used_by('images')
def test_preprocessors_tell_their_statistics_and_channel_order():
    from mmpretrain.models import ClsDataPreprocessor

    made = ImgDataPreprocessor(
        [1, 2, 3], [4, 5, 6], pad_value=7, bgr_to_rgb=True
    )
    assert made._channel_conversion and made.pad_value == 7
    assert made.mean.flatten().tolist() == [1, 2, 3]
    assert made.std.shape == (3, 1, 1)
    assert ClsDataPreprocessor(to_rgb=True).to_rgb is True


@used_by('distillers', 'calibration')
def test_annotations_have_boxes_as_a_tensor_or_around_one():
    from mmdet.structures.bbox import HorizontalBoxes

    boxes = HorizontalBoxes(torch.ones(2, 4))
    assert isinstance(boxes.tensor, torch.Tensor)
    assert InstanceData(bboxes=boxes).bboxes is boxes


# MMEngine


class Order(Hook):
    """Writes down in which order a Runner does things."""

    def __init__(self, log):
        self.log = log

    def before_run(self, runner):
        self.log.append('before_run')

    def after_load_checkpoint(self, runner, checkpoint):
        self.log.append('load')

    def before_train(self, runner):
        self.log.append('before_train')


class Trained(Plain):
    """Learns nothing, but can be run by a Runner."""

    log: list = []

    def init_weights(self):
        self.log.append('init_weights')

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return {'loss': self.layer(torch.stack(inputs)).sum()}


@pytest.fixture
def runner(tmp_path):
    checkpoint = tmp_path / 'start.pth'
    torch.save({'state_dict': Trained().state_dict()}, checkpoint)
    data = [dict(inputs=torch.ones(2)) for _ in range(2)]
    made = Runner(
        Trained(),
        str(tmp_path),
        train_dataloader=dict(
            dataset=data,
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=True),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        load_from=str(checkpoint),
        default_hooks=dict(logger=None),
        randomness=dict(seed=3, diff_rank_seed=True),
        experiment_name=tmp_path.name,
        default_scope='mmengine',
        log_level='ERROR',
    )
    return made


@used_by('hooks', 'algorithms (inherit)')
def test_a_runner_initialises_then_loads_then_trains(runner):
    log = Trained.log = []
    runner.register_hook(Order(log))
    runner.train()
    assert log == ['before_run', 'init_weights', 'load', 'before_train']
    assert isinstance(runner.train_loop, EpochBasedTrainLoop)
    assert (runner.epoch, runner.max_epochs, runner.iter) == (1, 1, 2)
    (saving,) = [x for x in runner.hooks if isinstance(x, CheckpointHook)]
    assert (saving.by_epoch, saving.interval, saving.save_begin) == (
        True,
        1,
        0,
    )
    assert saving.max_keep_ckpts == -1
    path = f'{saving.out_dir}/{saving.filename_tmpl.format(1)}'
    assert os.path.isfile(path)
    assert set(torch.load(path)) >= {'meta', 'state_dict', 'message_hub'}
    assert find_latest_checkpoint(runner.work_dir) == path
    assert MessageHub.get_current_instance().get_info('iter', 0) == 1


@used_by('hooks (calibration)')
def test_a_runner_knows_its_seed_and_builds_dataloaders(runner):
    assert runner.seed == 3
    assert runner._randomness_cfg['diff_rank_seed'] is True
    wanted = ['dataloader', 'seed', 'diff_rank_seed']
    assert names(Runner.build_dataloader) == wanted
    assert isinstance(Runner.__dict__['build_dataloader'], staticmethod)


@used_by('tools/train.py')
def test_there_is_no_latest_checkpoint_in_an_empty_folder(tmp_path):
    assert find_latest_checkpoint(str(tmp_path)) is None


@used_by('hooks (calibration)')
def test_an_infinite_sampler_counts_all_images():
    assert len(InfiniteSampler(range(7))) == 7


@used_by('algorithms')
def test_what_has_loss_in_its_name_is_summed_and_nothing_else():
    losses = {
        'student.loss_a': torch.tensor(1.0),
        'student.loss_rpn': [torch.tensor(2.0), torch.tensor(3.0)],
        'student.acc': torch.tensor(100.0),
    }
    total, logged = Plain().parse_losses(losses)
    assert total == 6
    assert list(logged) == ['loss', *losses]


@used_by('algorithms')
def test_a_model_that_is_moved_tells_its_parts_by_set_device():
    asked = []

    class Host(Plain):
        def _set_device(self, device):
            asked.append(device)
            super()._set_device(device)

        def _apply(self, fn, recurse=True):
            asked.append('_apply')
            return super()._apply(fn, recurse)

    Host().to(torch.device('cpu'))
    assert torch.device('cpu') in asked and '_apply' in asked


@used_by('teacher (FrozenTeacher)')
def test_an_average_is_a_deep_copy_and_its_keys_start_with_module():
    model, copies = Plain(), []

    class FrozenTeacher:
        def __deepcopy__(self, memo):
            copies.append(self)
            return FrozenTeacher()

    object.__setattr__(model, '_guest', FrozenTeacher())
    average = ExponentialMovingAverage(model)
    assert len(copies) == 1
    keys = {f'module.{x}' for x in model.state_dict()}
    assert set(average.state_dict()) == {'steps', *keys}


@used_by('export', 'docs')
def test_a_checkpoint_with_an_average_has_it_as_its_state_dict():
    hook = EMAHook()
    hook.ema_model = SimpleNamespace(
        state_dict=lambda: OrderedDict({'module.x': 'average', 'steps': 1})
    )
    content = {'state_dict': {'x': 'last'}}
    hook.before_save_checkpoint(None, content)
    assert content['state_dict'] == {'x': 'average'}
    assert content['ema_state_dict']['module.x'] == 'last'


@used_by('amp')
def test_an_optim_wrapper_runs_each_step_in_a_context():
    model = Plain()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), 0.1))
    with wrapper.optim_context(model):
        pass
    assert names(OptimWrapper.optim_context) == ['self', 'model']


@used_by('compat (patch_loaders)')
def test_mmengine_reads_all_files_through_registered_loaders(monkeypatch):
    seen = []

    def reader(filename, map_location=None, *args):
        seen.append(filename)
        return {'state_dict': {}}

    loader = mm_checkpoint.CheckpointLoader
    monkeypatch.setattr(loader, '_schemes', dict(loader._schemes))
    loader.register_scheme('', reader, force=True)
    loader.register_scheme(('http://', 'https://'), reader, force=True)
    monkeypatch.setattr(mm_checkpoint, 'load_from_http', reader)
    urls = {'resnet18': 'https://b'}
    monkeypatch.setattr(mm_checkpoint, 'get_torchvision_models', lambda: urls)
    monkeypatch.setattr(mm_checkpoint, 'get_external_models', lambda: urls)
    model = Plain()
    for path in ('a.pth', 'http://a', 'torchvision://resnet18'):
        mm_checkpoint.load_checkpoint(model, path)
    mm_checkpoint.load_checkpoint(model, 'open-mmlab://resnet18')
    assert seen == ['a.pth', 'http://a', 'https://b', 'https://b']
    # A Runner and an init_cfg read by these, too.
    runner = SimpleNamespace(
        model=model, logger=MMLogger('reader'), call_hook=lambda *_, **__: None
    )
    Runner.load_checkpoint(runner, 'b.pth')
    init = mmengine.model.PretrainedInit('c.pth')
    init(model)
    assert seen[-2:] == ['b.pth', 'c.pth']


@used_by('seeding (seed_data)')
def test_a_resumed_loop_asks_for_what_it_has_had():
    """OneDL's has it skipped."""
    runner = SimpleNamespace(
        call_hook=lambda *_, **__: None,
        visualizer=SimpleNamespace(),
        model=nn.Linear(1, 1),
    )
    loop = IterBasedTrainLoop(runner, DataLoader(range(4)), max_iters=3)
    begun = loop.dataloader_iterator
    assert type(begun) is _InfiniteDataloaderIterator and begun._epoch == 0
    asked, skipped = [], []

    class Batches:
        def __next__(self):
            asked.append(1)

        def skip_iter(self, number):
            skipped.append(number)

    loop.dataloader_iterator = Batches()
    loop._iter = 3
    loop.run()
    assert (len(asked), skipped) == ((0, [3]) if ONEDL else (3, []))
    assert hasattr(_InfiniteDataloaderIterator, 'skip_iter') == ONEDL
    # Each further pass is an epoch to the sampler.
    sampler = DefaultSampler(range(2), shuffle=True)
    begun = _InfiniteDataloaderIterator(DataLoader(range(2), sampler=sampler))
    begun._epoch = 4
    for _ in range(3):
        next(begun)
    assert sampler.epoch == 5


@used_by('seeding (seed_batches)')
def test_the_batch_sampler_is_asked_for_when_a_pass_begins():
    loader = DataLoader(range(4), 2)
    assert [x.tolist() for x in loader] == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match='after DataLoader'):
        loader.batch_sampler = [(3,)]
    object.__setattr__(loader, 'batch_sampler', [(3,)])
    assert [x.tolist() for x in loader] == [[3]]


@used_by('seeding (_SameDataset)')
def test_a_dataloader_is_built_of_a_copy_of_its_settings():
    class Settings(dict):
        def __deepcopy__(self, memo):
            return dict(self)

    dataset = [1, 2]
    settings = Settings(
        dataset=dataset, batch_size=1, sampler=dict(type='DefaultSampler')
    )
    loader = Runner.build_dataloader(settings, seed=3)
    assert loader.dataset is dataset and loader.sampler.seed == 3
    assert isinstance(settings['sampler'], dict)


@used_by('pairing')
def test_metafiles_tell_the_weights_of_a_config():
    folder = get_installed_path('mmdet')
    for name in ('no/such.py', 'retinanet/no.py'):
        with pytest.raises(ValueError):
            _get_cfg_metainfo(folder, name)
    path = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    package, name = _get_package_and_cfg_path(path)
    assert get_installed_path(package) == folder
    assert _get_cfg_metainfo(folder, name)['Weights'].endswith('.pth')


@used_by('compat', 'teacher', 'tests/conftest.py')
def test_config_finds_its_bases_by_a_function_of_its_own():
    assert isinstance(Config.__dict__['_get_cfg_path'], staticmethod)
    assert names(Config._get_cfg_path) == ['cfg_path', 'filename']
    for path in ('mmdet::no/such.py', 'mmdet::retinanet/no.py'):
        with pytest.raises((FileNotFoundError, ValueError)):
            Config._get_cfg_path(path, '')
    path = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    found, scope = Config._get_cfg_path(path, '')
    assert scope == 'mmdet' and get_config(path).filename == found


@used_by('compat (mmrazor_configs)')
def test_config_reads_each_file_by_a_function_of_its_own():
    assert isinstance(Config.__dict__['_file2dict'], staticmethod)
    path = Config._get_cfg_path('mmdet::_base_/default_runtime.py', '')[0]
    content, text, variables = Config._file2dict(path)
    assert content['default_scope'] == 'mmdet'
    assert 'default_scope' in text and variables == {}


@used_by('cli (start_processes)')
def test_a_group_that_is_there_is_taken_and_the_wrapper_is_ours(
    tmp_path, monkeypatch
):
    """MMEngine would choose a GPU, and there is none."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.delenv('RANK', raising=False)
    torch.distributed.init_process_group(
        'gloo', (tmp_path / 'meeting').as_uri(), rank=0, world_size=1
    )
    try:
        runner = SimpleNamespace(
            distributed=True, launcher='pytorch', cfg=Config()
        )
        Runner.setup_env(runner, dict(dist_cfg=dict(backend='gloo')))
        wrapped = Runner.wrap_model(
            runner,
            dict(device_ids=None, broadcast_buffers=False),
            Plain(),
        )
        assert type(wrapped).__name__ == 'MMDistributedDataParallel'
        assert wrapped.device_ids is None
        assert wrapped.find_unused_parameters is False
    finally:
        torch.distributed.destroy_process_group()


# The tools of mmdet and mmpretrain


@used_by('tools/train.py', 'tools/test.py', 'cli')
@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
@pytest.mark.parametrize('name', ['train', 'test'])
def test_upstream_tools_parse_then_do_all_in_main(
    name, scope, tmp_path, monkeypatch
):
    path = tmp_path / 'x.py'
    path.write_text(f'default_scope = {scope!r}\nmodel = dict()\n')
    given = [str(path), 'x.pth'] if name == 'test' else [str(path)]
    tool = upstream.upstream_tool(name, given)
    assert tool.__name__ == f'{scope}_{name}'
    monkeypatch.setattr('sys.argv', ['x', *given, '--launcher', 'pytorch'])
    monkeypatch.setenv('LOCAL_RANK', '0')
    args = vars(tool.parse_args())
    wanted = {'config', 'work_dir', 'cfg_options', 'launcher'}
    assert wanted | {'checkpoint' if name == 'test' else 'resume'} <= set(args)
    assert args['cfg_options'] is None and args['launcher'] == 'pytorch'

    class Asked(BaseException):
        """That main() asks for the arguments that we have changed."""

    def parse():
        raise Asked

    tool.parse_args = parse
    with pytest.raises(Asked):
        tool.main()


# mmpretrain


@used_by('folding', 'export', 'pairing')
def test_an_embedding_is_the_fc_of_a_linear_neck():
    neck = MODELS.build(
        dict(
            type='mmpretrain.LinearNeck',
            in_channels=4,
            out_channels=2,
            gap_dim=2,
            norm_cfg=None,
        )
    )
    head = MODELS.build(
        dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=2)
    )
    assert set(neck.state_dict()) == {'fc.weight', 'fc.bias'}
    assert set(head.state_dict()) == {'fc.weight', 'fc.bias'}
    default = signature(type(neck)).parameters['norm_cfg'].default
    assert default == dict(type='BN1d')
    feature = torch.rand(1, 4, 5, 5)
    (pooled,) = neck((feature,))
    torch.testing.assert_close(pooled, neck.fc(feature.mean(dim=(2, 3))))


@used_by('datasets')
def test_a_data_set_reads_then_filters(tmp_path):
    from mmpretrain.datasets import MultiLabelDataset

    log = []

    class Data(MultiLabelDataset):
        def load_data_list(self):
            log.append((self.ann_file, self.img_prefix))
            self._metainfo.setdefault('classes', ('a',))
            return [dict(img_path='x', gt_label=[0])]

        def filter_data(self):
            log.append((self.filter_cfg, self.data_list[0]['img_path']))
            return self.data_list

    root = str(tmp_path)
    made = Data('a.json', data_root=root, data_prefix='i', filter_cfg={'b': 1})
    assert log == [(f'{root}/a.json', f'{root}/i'), ({'b': 1}, 'x')]
    assert made.CLASSES == ('a',)
    assert issubclass(Data, BaseDataset)


@used_by('distillers (correct)')
def test_samples_of_classifiers_have_labels_and_scores():
    from mmpretrain.structures import DataSample

    sample = DataSample().set_gt_label(2).set_gt_score(torch.ones(3))
    assert sample.get('gt_label').tolist() == [2]
    assert sample.get('gt_score').tolist() == [1, 1, 1]
    assert DataSample().get('gt_score') is None


# torch


@used_by('teachers.frozen (_find_unneeded)')
def test_tree_leaves_flattens_what_recorders_hold():
    from torch.utils._pytree import tree_leaves

    assert tree_leaves([[(1, [2])], {'a': 3}]) == [1, 2, 3]


@used_by('hashing (project_back)')
def test_conv2d_input_is_the_gradient_of_a_convolution():
    from torch.nn.grad import conv2d_input

    image = torch.rand(1, 2, 5, 5, requires_grad=True)
    kernel = torch.rand(3, 2, 3, 3)
    output = torch.nn.functional.conv2d(image, kernel, padding=1)
    slopes = torch.rand_like(output)
    (expected,) = torch.autograd.grad(output, image, slopes)
    found = conv2d_input(image.shape, kernel, slopes, padding=1)
    torch.testing.assert_close(found, expected)


@used_by('losses (LSHLoss)')
def test_loading_asks_each_module_by_its_prefix():
    asked = []

    class Layer(nn.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *args):
            asked.append(prefix)
            super()._load_from_state_dict(state_dict, prefix, *args)

    model = nn.ModuleDict({'a': Layer(1, 1)})
    model.load_state_dict(model.state_dict())
    # MMEngine has a loop of its own.
    mm_checkpoint.load_state_dict(model, model.state_dict())
    assert asked == ['a.', 'a.']


@used_by('taps (LabelsRecorder)')
def test_forward_hooks_see_arguments_by_name():
    seen = []
    layer = nn.Linear(1, 1)
    layer.register_forward_hook(
        lambda module, args, kwargs, output: seen.append((args, kwargs)),
        with_kwargs=True,
    )
    layer(input=torch.ones(1))
    assert seen[0][0] == () and 'input' in seen[0][1]


@used_by('execution')
def test_errors_of_the_compiler_have_a_class_of_their_own():
    from torch._dynamo.exc import TorchDynamoException, Unsupported

    assert issubclass(Unsupported, TorchDynamoException)
    assert callable(nn.Linear(1, 1).compile)


@used_by('teacher (forked_rng)')
def test_random_states_come_back_from_a_fork():
    before = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        torch.rand(1)
    assert torch.equal(before, torch.get_rng_state())


@used_by('checkpoints')
@pytest.mark.parametrize('forced', [False, True])
def test_weights_only_holds_whatever_the_environment_says(
    forced, monkeypatch, tmp_path
):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'marker'),)

    if forced:
        monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    file = io.BytesIO()
    torch.save(Code(), file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
    assert not (tmp_path / 'marker').exists()


@used_by('utils.checkpoints (code_in)')
def test_torch_names_what_it_does_not_take_for_safe(tmp_path):
    history = HistoryBuffer(np.array([1.0]), np.array([1]))
    torch.save([torch.ones(1), history, os.mkdir], tmp_path / 'x.pth')
    names = get_unsafe_globals_in_checkpoint(tmp_path / 'x.pth')
    assert names == [f'{os.mkdir.__module__}.mkdir']
    (tmp_path / 'x.pth').write_bytes(b'junk')
    with pytest.raises(ValueError):
        get_unsafe_globals_in_checkpoint(tmp_path / 'x.pth')


@used_by('utils.safe_classes')
def test_mmengines_checkpoints_hold_only_names_that_we_call_safe(tmp_path):
    history = HistoryBuffer(np.array([1.0]), np.array([1]))
    content = dict(
        meta=dict(epoch=1, seed=0),
        message_hub=dict(log_scalars=OrderedDict(loss=history)),
        state_dict=OrderedDict(x=torch.ones(1, dtype=torch.bfloat16)),
        optimizer=dict(lr=np.float64(1), step=np.int64(2)),
    )
    torch.save(content, tmp_path / 'x.pth')
    assert code_in(tmp_path / 'x.pth') == []
    loaded = torch.load(tmp_path / 'x.pth', weights_only=True)
    assert loaded['message_hub']['log_scalars']['loss'].mean() == 1


@used_by('utils.checkpoints (download)')
def test_downloads_with_a_wrong_hash_leave_nothing(tmp_path, monkeypatch):
    from torch.hub import download_url_to_file, get_dir

    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    assert get_dir() == f'{tmp_path}/hub'
    served = tmp_path / 'served.pth'
    served.write_bytes(b'x')
    target = tmp_path / 'to' / 'x.pth'
    target.parent.mkdir()
    with pytest.raises(RuntimeError, match='invalid hash value'):
        download_url_to_file(served.as_uri(), str(target), '00', False)
    assert not list(target.parent.iterdir())


@used_by('tests/two_processes.py')
def test_a_global_hook_sees_gradients_before_each_step():
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    seen = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, args, kwargs: seen.append(parameter.grad.item())
    )
    parameter = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([parameter], 0.1)
    (parameter * 3).backward()
    optimizer.step()
    handle.remove()
    optimizer.step()
    assert seen == [3]


@used_by('backbones')
def test_channels_are_shuffled_from_group_to_group():
    image = torch.arange(4.0).view(1, 4, 1, 1)
    shuffled = nn.ChannelShuffle(2)(image).flatten().tolist()
    assert shuffled == [0, 2, 1, 3]


@used_by('calibration', 'distillers.tap_weights', 'insight.labels')
def test_boxes_are_given_as_a_tensor_whatever_holds_them():
    from mmdet.structures.bbox import HorizontalBoxes, get_box_tensor

    boxes = torch.tensor([[1.0, 2, 3, 4]])
    for given in (boxes, HorizontalBoxes(boxes)):
        assert torch.equal(get_box_tensor(given), boxes)


# torchvision


@used_by('backbones')
def test_blocks_of_torchvision_have_the_names_of_their_layers():
    from torchvision.models.resnet import BasicBlock
    from torchvision.models.shufflenetv2 import InvertedResidual
    from torchvision.ops import Conv2dNormActivation

    assert {'conv1.weight', 'bn2.running_var'} <= set(
        BasicBlock(4, 4).state_dict()
    )
    assert 'branch2.0.weight' in InvertedResidual(4, 4, 1).state_dict()
    assert '0.weight' in Conv2dNormActivation(3, 4).state_dict()
