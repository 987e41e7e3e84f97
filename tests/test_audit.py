"""The audit: silent failures are loud before the first update."""

import copy
from pathlib import Path

import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmrazor.registry import MODELS

from lshfm_mm.cli.training import audit_options, evaluate_teacher
from lshfm_mm.errors import ConfigError
from lshfm_mm.losses.hashing import hash_codes
from lshfm_mm.training import audit, audit_loop

from .test_algorithms import losses_of
from .test_detectors import distil, retinanet
from .test_training import epochs, train

LSH = dict(type='LSHLoss')
NECK = dict(layer='neck', record='output')
RECOMMENDED = 'faster_rcnn_recommended'
OFF = 'distill_losses: all weights are 0'


@pytest.fixture
def build(make_config):
    """Build a shapes algorithm; overrides of its model."""

    def make(name='faster_rcnn_lshfm', strict=True, **overrides):
        cfg = make_config(name)
        cfg.merge_from_dict({f'model.{k}': v for k, v in overrides.items()})
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        model.audit = audit.Audit(model, strict)
        return model.train()

    return make


def audit_of(runner):
    """That of the hook of a runner."""
    return next(x.audit for x in runner.hooks if hasattr(x, 'audit'))


@pytest.fixture
def said(monkeypatch):
    """What the audit logs, joined."""
    lines = []
    for module in (audit, audit_loop):
        monkeypatch.setattr(
            module, 'print_log', lambda text, *_, **__: lines.append(text)
        )
    return lines


def test_the_table_says_what_there_is(build, batch, said, teacher_checkpoint):
    model, calls = build(), []
    for which in (model.student, model.teacher):
        which.roi_head.bbox_head.fc_cls.register_forward_hook(
            lambda _, inputs, output: calls.append(inputs[0].detach())
        )
    losses = losses_of(model, batch)
    (table, *rest) = said
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in table.splitlines()
        if line.startswith('|')
    ]
    facts = dict(x for x in rows if x[0])
    keys = len(model.teacher.state_dict())
    assert facts['teacher'] == (
        f'loaded {keys} of {keys} keys from {teacher_checkpoint}'
    )
    weights = [k for k, v in model.student.named_parameters() if v.dim() > 1]
    parts = [
        f'{part} {n} of {n}'
        for part in ('backbone', 'neck', 'rpn_head', 'roi_head')
        if (n := sum(x.startswith(part) for x in weights))
    ]
    assert facts['student'] == (
        f'random: {len(weights)} of {len(weights)} weights, {", ".join(parts)}'
    )
    # Whether to inherit was decided with the config, and its reason is there.
    assert 'starts at random' in rest[0] and 'inherit' not in rest[0]
    shape = tuple(calls[0].shape)
    assert facts['tap roi'] == (
        f'student: input of roi_head.bbox_head.fc_cls, {shape} float32'
    )
    assert ['', facts['tap roi'].replace('student', 'teacher')] in rows
    loss = model.distiller.distill_losses.loss_roi_lsh
    codes = [hash_codes(x, loss.weight, loss.bias) for x in calls]
    share = (codes[0] == codes[1]).double().mean().item()
    value = losses['distill.loss_roi_lsh'].item()
    assert facts['distill.loss_roi_lsh'] == (
        f'weight 7, first value {value:.4g}, {share:.1%} of the hash codes '
        f'are equal'
    )
    value = losses['student.loss_cls'].item()
    assert facts['student.loss_cls'] == f'first value {value:.4g}'
    losses_of(model, batch)
    assert len(said) == 2  # once


def test_an_heir_has_a_backbone_that_starts_at_random(build, batch, said):
    """All is counted in one unit, and that is said of the backbone."""
    model = build('faster_rcnn_recommended')
    losses_of(model, batch)
    teacher = model.teacher.state_dict()
    own = {
        name: name in teacher and torch.equal(x, teacher[name])
        for name, x in model.student.named_parameters()
        if x.dim() > 1
    }
    taken, total = sum(own.values()), len(own)
    assert 0 < taken < total
    assert f'| inherit: {taken} of {total} weights ' in said[0]
    assert f'| random: {total - taken} of {total} weights, ' in said[0]
    assert said[1].startswith('student: no file gave its backbone a weight')


def test_a_backbone_of_a_file_is_no_random_start(
    build, batch, said, make_config, tmp_path
):
    student = MODELS.build(make_config('faster_rcnn_student').model)
    torch.save(student.backbone.state_dict(), tmp_path / 'b')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'b'))
    changes = {
        'architecture.backbone.init_cfg': dict(init, _delete_=True),
        'architecture.backbone.frozen_stages': 1,  # that is what they are for
    }
    losses_of(build(**changes), batch)
    (table,) = said
    assert 'random: ' in table and ' weights, neck 3' not in table
    assert 'backbone' not in table[table.index('random: ') :].split('\n')[0]


def test_random_weights_that_never_learn_are_warned_of(build, batch, said):
    frozen = build(**{'architecture.backbone.frozen_stages': 1})
    losses_of(frozen, batch)
    names = [
        name
        for name, x in frozen.student.named_parameters()
        if x.dim() > 1 and not x.requires_grad
    ]
    assert 'backbone.conv1.weight' in names
    assert said[-1].startswith(
        f'architecture.backbone: {len(names)} weights start at random and '
        f'are frozen ({names[0]}, '
    )
    said.clear()
    losses_of(build(), batch)
    assert 'frozen' not in ''.join(said)


def test_the_audit_changes_nothing(make_config):
    """The same weights, bit for bit, with and without it."""
    hook = dict(type='FirstBatchAuditHook')
    runs = [
        train(make_config(RECOMMENDED, {**epochs(1), 'custom_hooks': hooks}))
        for hooks in ([hook], [])
    ]
    assert not audit_of(runs[0]).is_open
    assert not runs[0].model.distiller.observers  # it has left
    state = runs[1].model.state_dict()
    for key, value in runs[0].model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_weights_of_zero_are_a_wish_and_said(build, batch, said):
    loss = dict(type='LSHLoss', loss_weight=0)
    losses_of(build(**{'distiller.losses.roi': [loss]}), batch)
    assert said[0].startswith(OFF)


def test_one_weight_of_zero_is_an_error(build, batch):
    losses = [LSH, dict(type='RelativeL2Loss', loss_weight=0)]
    with pytest.raises(ConfigError, match='_relativel2: its loss_weight is 0'):
        losses_of(build(**{'distiller.losses.roi': losses}), batch)


def test_a_loss_that_no_mapping_names_is_an_error(build, batch):
    """Its weight is 0 in effect: MMRazor computes it nowhere."""
    extra = {
        'distiller.distill_losses': dict(
            loss_neck=dict(type='L1Loss', loss_weight=5)
        )
    }
    with pytest.raises(ConfigError, match='loss_neck: is never computed'):
        losses_of(build(**extra), batch)


def test_a_tap_that_never_runs_is_an_error(batch):
    """mode='tensor' calls no loss: the teacher's is silent."""
    mute = dict(layer='bbox_head.loss_cls', record='output')
    model = distil(
        retinanet(4),
        retinanet(8),
        dict(mute=mute),
        dict(mute=[dict(type='FeatureL2Loss')]),
    )
    with pytest.raises(ConfigError) as error:
        losses_of(model, batch)
    assert str(error.value) == (
        "taps.mute: the layer 'bbox_head.loss_cls' of the teacher does not "
        'run in training; tap one that does'
    )


def test_a_recorder_that_sees_nothing_is_an_error(build, batch):
    """mmdet's bbox head of training calls no mask head's loss."""
    record = dict(type='ModuleOutputs', source='rpn_head.loss_bbox')
    mapping = dict(
        s_feature=dict(recorder='mute', from_student=True),
        t_feature=dict(recorder='mute', from_student=False),
    )
    model = build(
        **{
            'distiller.student_recorders': dict(mute=record),
            'distiller.teacher_recorders': dict(
                mute=dict(type='ModuleOutputs', source='neck')
            ),
            'distiller.distill_losses': dict(loss_mute=dict(type='L1Loss')),
            'distiller.loss_forward_mappings': dict(loss_mute=mapping),
        },
    )
    recorder = model.distiller.student_recorders.recorders['mute']
    model.student.rpn_head.loss_bbox = torch.nn.SmoothL1Loss()
    model.student.rpn_head.loss_by_feat = lambda *_, **__: {}
    with pytest.raises(ConfigError, match="loss_mute: the recorder 'mute' of"):
        losses_of(model, batch)
    assert recorder.data_buffer == []


@pytest.mark.parametrize(
    ('taps', 'culprit'),
    [
        (
            dict(
                a=dict(layer='backbone.bn1', record='output'),
                b=dict(layer='backbone.relu', record='output'),
            ),
            "recorder 'a' of the teacher, at 'backbone.bn1',",
        ),
        (
            dict(a=dict(layer='backbone.relu', record='input')),
            "recorder 'a' of the teacher, at 'backbone.relu',",
        ),
        (
            dict(
                a=dict(
                    student='backbone.bn1',
                    teacher='backbone.conv1',
                    record='output',
                )
            ),
            "recorder 'a' of the student, at 'backbone.bn1',",
        ),
        (
            dict(
                a=dict(
                    student='backbone.conv1',
                    teacher='backbone.bn1',
                    record='output',
                )
            ),
            "recorder 'a' of the teacher, at 'backbone.bn1',",
        ),
    ],
)
def test_features_overwritten_in_place_are_an_error(
    taps, culprit, build, batch
):
    """ReLU(inplace=True) behind a recorder: both see one tensor."""
    join = dict(
        type='TorchNNConnector',
        module_name='Conv2d',
        module_args=dict(in_channels=4, out_channels=8, kernel_size=1),
    )
    model = build(
        **{
            'distiller.taps': dict(_delete_=True, **taps),
            'distiller.losses': dict(
                _delete_=True,
                **{x: [dict(type='FeatureL2Loss')] for x in taps},
            ),
            'distiller.connectors': {x: join for x in taps},
        }
    )
    with pytest.raises(ConfigError) as error:
        losses_of(model, batch)
    assert str(error.value).startswith(f'{culprit} holds a tensor that a ')


def test_a_loss_without_gradient_to_the_student_is_an_error(build, batch):
    """The backbone's features, while only what follows is trained."""
    join = dict(
        type='TorchNNConnector',
        module_name='Conv2d',
        module_args=dict(in_channels=4, out_channels=8, kernel_size=1),
    )
    model = build(
        student_trainable=['neck', 'roi_head'],
        **{
            'distiller.taps.stem': dict(
                layer='backbone.layer1', record='output'
            ),
            'distiller.losses.stem': [dict(type='FeatureL2Loss')],
            'distiller.connectors': dict(stem=join),
        },
    )
    with pytest.raises(ConfigError, match='loss_stem_featurel2: is .* has no'):
        losses_of(model, batch)


class Constant(torch.nn.Module):
    """A loss of the user that forgets its inputs."""

    loss_weight = 1.0

    def forward(self, s_feature, t_feature):
        """Give 0 with a gradient of 0."""
        return 0 * s_feature.sum()


def test_a_loss_that_is_always_zero_is_an_error(build, batch):
    model = build()
    model.distiller.distill_losses['loss_roi_lsh'] = Constant()
    with pytest.raises(ConfigError, match='lsh: is 0 although its tap has'):
        losses_of(model, batch)


def test_a_student_that_is_the_teacher_already_is_none(make_config, batch):
    """L2 is 0 then, and right."""
    cfg = make_config('faster_rcnn_lshfm')
    cfg.model.distiller.losses.roi = [LSH, dict(type='FeatureL2Loss')]
    teacher = Config.fromfile(cfg.model.teacher.cfg_path).model
    cfg.model.architecture = teacher
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.student.load_state_dict(model.teacher.state_dict())
    model.train()
    model.student.eval()  # as the teacher: BN
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    losses = model(**data, mode='loss')
    assert losses['distill.loss_roi_featurel2'] == 0


def test_a_batch_without_samples_is_audited_later(build, batch, monkeypatch):
    model = build()
    with monkeypatch.context() as patch:
        # As in a batch of which no RoI is left.
        patch.setattr(audit, 'has_samples', lambda seen: False)
        losses_of(model, batch)
        assert model.audit.is_open
    losses_of(model, batch)
    assert not model.audit.is_open


def test_a_loss_that_never_has_samples_is_an_error(build, batch, monkeypatch):
    model = build(**{'distiller.losses.roi': [LSH]})
    monkeypatch.setattr(audit, 'PATIENCE', 2)
    monkeypatch.setattr(audit, 'has_samples', lambda seen: False)
    losses_of(model, batch)
    with pytest.raises(ConfigError, match='no sample that counts, or no fini'):
        losses_of(model, batch)


def test_a_teacher_of_renamed_keys_is_an_error(
    build, teacher_checkpoint, tmp_path
):
    """Strict names the keys; not strict still refuses that nothing fits."""
    content = torch.load(teacher_checkpoint, weights_only=True)
    state = {f'{k}.net': v for k, v in content['state_dict'].items()}
    path = tmp_path / 'renamed.pth'
    torch.save(dict(state_dict=state), path)
    for strict in (True, False):
        with pytest.raises(ConfigError, match='does not fit the teacher'):
            build(teacher_ckpt=str(path), teacher_strict=strict)


def test_a_plain_file_in_load_from_is_the_students(make_config):
    """In plain MMEngine it would start from scratch, with a warning."""
    plain = train(make_config('faster_rcnn_student', epochs(1)))
    cfg = make_config('faster_rcnn_lshfm', epochs(1))
    cfg.load_from = f'{plain.work_dir}/epoch_1.pth'
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    own = runner.model.student.state_dict()
    assert runner.model.student_origins == [
        f'checkpoint: {len(own)} of {len(own)} keys of the student'
    ]
    for key, value in plain.model.state_dict().items():
        assert torch.equal(own[key].cpu(), value.cpu()), key


def test_a_file_of_another_model_in_load_from_is_an_error(
    make_config, tmp_path
):
    torch.save(dict(state_dict=dict(a=torch.ones(1))), tmp_path / 'a.pth')
    cfg = make_config('faster_rcnn_lshfm', epochs(1))
    cfg.load_from = str(tmp_path / 'a.pth')
    with pytest.raises(ConfigError, match=r'load_from: .* keys \(.*\) 0 fit'):
        train(cfg)


@pytest.mark.parametrize(('factor', 'warns'), [(1.0, False), (1e3, True)])
def test_features_of_another_size_are_told(build, batch, said, factor, warns):
    """A student that explodes against its teacher at the first batch."""
    model = build()
    layer = model.student.roi_head.bbox_head.shared_fcs[-1]
    with torch.no_grad():
        layer.weight.mul_(factor)
    features = {}
    for which in ('student', 'teacher'):
        getattr(model, which).roi_head.bbox_head.fc_cls.register_forward_hook(
            lambda _, inputs, output, which=which: features.update(
                {which: inputs[0].detach().double()}
            )
        )
    losses_of(model, batch)
    lines = [x for x in said if 'times as large' in x]
    assert bool(lines) == warns
    if warns:
        sizes = {k: (v**2).mean().sqrt().item() for k, v in features.items()}
        ratio = sizes['student'] / sizes['teacher']
        assert lines[0].startswith(
            f'taps.roi: the features of the student are {ratio:.3g} times'
        )


def test_a_pretrained_file_of_another_network_is_an_error(
    build, teacher_checkpoint, said
):
    """The whole teacher in the place of the student's backbone."""
    init = dict(type='Pretrained', checkpoint=str(teacher_checkpoint))
    init['_delete_'] = True
    changes = {'architecture.backbone': dict(init_cfg=init)}
    with pytest.raises(ConfigError) as error:
        build(**changes)
    fault = f'architecture.backbone.init_cfg: {teacher_checkpoint} gave 0 of '
    assert str(error.value).startswith(fault)
    build(strict=False, **changes)
    assert said[-1].startswith(f'audit: {fault}')


def test_what_a_checkpoint_gives_is_counted(make_config):
    first = train(make_config('faster_rcnn_lshfm', epochs(1)))
    cfg = make_config('faster_rcnn_lshfm', epochs(2))
    cfg.load_from = f'{first.work_dir}/epoch_1.pth'
    second = train(cfg)
    total = len(second.model.student.state_dict())
    assert second.model.student_origins == [
        f'checkpoint: {total} of {total} keys of the student'
    ]


def alone(
    make_config, name='faster_rcnn_recommended', changes=None, **overrides
):
    """A runner that audits and trains nothing."""
    cfg = make_config(name, changes)
    cfg.merge_from_dict({f'model.{k}': v for k, v in overrides.items()})
    cfg.merge_from_dict(audit_options(cfg))
    cfg.experiment_name = cfg.work_dir
    return Runner.from_cfg(cfg)


def test_the_audit_alone_refuses_what_is_not_finite(make_config):
    runner = alone(make_config, 'faster_rcnn_lshfm')
    runner.model.teacher.roi_head.bbox_head.shared_fcs[0].bias.fill_(torch.nan)
    with pytest.raises(ConfigError, match='distill.loss_roi_.* is not finite'):
        runner.train()


def test_the_audit_alone_takes_a_control(make_config, said):
    """All weights 0: what it is compared with is checked, too."""
    losses = {'distiller.losses.roi': [dict(type='LSHLoss', loss_weight=0)]}
    alone(make_config, 'faster_rcnn_lshfm', **losses).train()
    assert any(x.startswith(OFF) for x in said)


def test_plain_models_are_checked(make_config, said):
    """A newcomer's first training is that of the teacher."""
    runner = alone(make_config, 'faster_rcnn_student')
    runner.train()
    assert said == [
        'train_dataloader: one batch passed the model',
        'val_dataloader: one batch passed the model and was evaluated '
        '(no detection yet is no fault)',
    ]
    assert not runner.optim_wrapper.optimizer.state  # no step
    runner = alone(make_config, 'faster_rcnn_student')
    runner.model.rpn_head.loss_bbox.loss_weight = torch.nan
    with pytest.raises(ConfigError, match='loss.* is not finite in the first'):
        runner.train()


def test_the_audit_alone_evaluates_one_batch(make_config, said):
    """Two images of six; without a validation set there is nothing to do."""
    runner = alone(make_config)
    (metric,) = runner.val_evaluator.metrics
    evaluated, compute = [], metric.compute_metrics
    metric.compute_metrics = lambda x: evaluated.append(x) or compute(x)
    runner.train()
    passed = 'val_dataloader: one batch passed the model and was evaluated '
    assert said[-1].startswith(passed)
    assert [truth['img_id'] for truth, _ in evaluated[0]] == [1, 2]
    assert runner.message_hub.get_scalar('val/coco/bbox_mAP').current() < 1
    said.clear()
    parts = ('val_dataloader', 'val_evaluator', 'val_cfg')
    alone(make_config, changes=dict.fromkeys(parts)).train()
    assert 'audit' in said[0]
    assert not any(x.startswith(passed) for x in said)


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        (
            # The last map of the neck, of stride 32, is of 1 x 1.
            {
                'model.architecture.neck.norm_cfg': dict(
                    type='GN', num_groups=64
                ),
                'val_dataloader.batch_size': 1,
                'val_dataloader.dataset.pipeline.2.scale': (32, 32),
            },
            ValueError,
            'Expected more than 1 value per channel',
        ),
        (
            {
                'val_dataloader.dataset.pipeline.3.meta_keys': (
                    'img_shape',
                    'ori_shape',
                    'scale_factor',
                )
            },
            KeyError,
            'img_id',
        ),
        (
            {'default_hooks.checkpoint.save_best': 'coco/bbox_mAp'},
            KeyError,
            'coco/bbox_mAp',
        ),
    ],
)
def test_a_student_that_cannot_be_evaluated_is_an_error(
    changes, error, message, make_config, said
):
    """As the first evaluation would raise it, with a line that says where."""
    runner = alone(make_config, changes=changes)
    with pytest.raises(error, match=message):
        runner.train()
    assert said[-1].startswith('val_dataloader: the model cannot be evaluat')


def test_the_audit_alone_saves_nothing(make_config, tmp_path):
    save = dict(type='CheckpointHook', save_best='auto', out_dir=str(tmp_path))
    changes = {'default_hooks.checkpoint': dict(save, _delete_=True)}
    runner = alone(make_config, changes=changes)
    runner.train()
    assert not list(tmp_path.rglob('*.pth'))
    assert not list(Path(runner.work_dir).rglob('*.pth'))


def test_the_audit_alone_lets_hooks_begin_an_epoch(make_config):
    """What a hook does before a batch, such as YOLOX's, changes the batch."""
    calls = []

    class Noting(Hook):
        def before_train_epoch(self, runner):
            calls.append('epoch')

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            calls.append((batch_idx, len(data_batch['inputs'])))

    runner = alone(make_config)
    runner.register_hook(Noting())
    runner.train()
    assert calls == ['epoch', (0, 2)]


def test_the_audit_alone_spares_what_needs_all_images(make_config, said):
    """Panoptic quality of a part of the images is an error of mmdet's."""
    runner = alone(make_config)

    class CocoPanopticMetric(CocoMetric):
        def compute_metrics(self, results):
            raise RuntimeError('no prediction for the image with id 3')

    (metric,) = runner.val_evaluator.metrics
    metric.__class__ = CocoPanopticMetric
    runner.train()
    assert said[-1] == 'val_dataloader: one batch passed the model'


def test_a_file_of_the_whole_comes_after_those_of_parts(make_config, tmp_path):
    """ImageNet's backbone, and a checkpoint of the whole detector."""
    plain = train(make_config('faster_rcnn_student', epochs(1)))
    whole = f'{plain.work_dir}/epoch_1.pth'
    backbone = tmp_path / 'backbone.pth'
    state = plain.model.backbone.state_dict()
    torch.save({k: torch.rand(v.shape) for k, v in state.items()}, backbone)
    cfg = make_config('faster_rcnn_lshfm')
    student = cfg.model.architecture
    student.init_cfg = dict(type='Pretrained', checkpoint=whole)
    student.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(backbone)
    )
    model = MODELS.build(cfg.model)
    model.init_weights()
    (line,) = model.student_origins
    assert line.startswith('init_cfg: ') and line.endswith(whole)


def test_what_a_checkpoint_of_another_width_lacks_is_said(make_config):
    """Its names fit, its shapes do not: MMEngine hides it in a long log."""
    first = train(make_config('faster_rcnn_lshfm', epochs(1)))
    cfg = make_config('faster_rcnn_lshfm')
    cfg.model.architecture.backbone.base_channels = 6
    cfg.model.architecture.neck.in_channels = [6, 12, 24, 48]
    cfg.load_from = f'{first.work_dir}/epoch_1.pth'
    cfg.experiment_name = cfg.work_dir
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    narrow = first.model.student.state_dict()
    own = runner.model.student.state_dict()
    other = [k for k, v in own.items() if narrow[k].shape != v.shape]
    assert len(other) > 100
    (line,) = runner.model.student_origins
    assert line.startswith(
        f'checkpoint: {len(own) - len(other)} of {len(own)} keys of the '
        f'student, {len(other)} misshapen: architecture.{other[0]}, '
    )


def test_checkpointed_layers_do_not_stop_the_audit(build, batch):
    """Reentrant checkpoints allow no gradient of what lies behind them."""
    stem = dict(layer='backbone.layer1', record='output')
    join = dict(
        type='TorchNNConnector',
        module_name='Conv2d',
        module_args=dict(in_channels=4, out_channels=8, kernel_size=1),
    )
    model = build(
        **{
            'architecture.backbone.with_cp': True,
            'distiller.taps': dict(stem=stem, neck=NECK),
            'distiller.losses': dict(
                stem=[dict(type='FeatureL2Loss')],
                neck=[dict(type='FeatureL2Loss')],
            ),
            'distiller.connectors': dict(stem=join),
        }
    )
    losses_of(model, batch)
    assert not model.audit.is_open


@pytest.mark.parametrize('by_epoch', [True, False])
def test_the_audit_alone_updates_nothing(make_config, by_epoch, capsys):
    """Nor does it print the environment and the config."""
    cfg = make_config('faster_rcnn_recommended')
    if not by_epoch:
        cfg.train_cfg = dict(by_epoch=False, max_iters=8)
        cfg.param_scheduler = None
    cfg.merge_from_dict(audit_options(cfg))
    cfg.experiment_name = cfg.work_dir
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 0
    assert not runner.model.distiller.observers
    assert not runner.optim_wrapper.optimizer.state
    before, table, after = capsys.readouterr().out.partition('| audit ')
    assert table and before.count('\n') < 20
    assert 'INFO - val_dataloader: one batch passed' in after


def test_a_teacher_that_finds_nothing_is_an_error(
    make_config, teacher_checkpoint, tmp_path
):
    """Its weights fit the network, but not the task."""
    content = torch.load(teacher_checkpoint, weights_only=True)
    bias = content['state_dict']['roi_head.bbox_head.fc_cls.bias']
    bias[-1] = 1e3  # all is background
    path = tmp_path / 'blind.pth'
    torch.save(content, path)
    cfg = make_config('faster_rcnn_lshfm')
    cfg.model.teacher_ckpt = str(path)
    with pytest.raises(ConfigError, match='the teacher scores 0 on the valid'):
        evaluate_teacher(cfg)


def test_not_strict_it_warns_of_a_fault(make_config, said):
    """And does not look again."""
    changes = {
        **epochs(1),
        'custom_hooks': [dict(type='FirstBatchAuditHook', strict=False)],
        'model.distiller.taps': dict(
            neck=NECK, head='roi_head.bbox_head.fc_cls'
        ),
        'model.distiller.active': ['neck', 'head'],
        'model.distiller.losses': dict(
            neck=[dict(type='FeatureL2Loss', loss_weight=0)],
            head=[dict(type='FeatureL2Loss')],
        ),
    }
    cfg = make_config(RECOMMENDED, changes)
    runner = train(cfg)
    faults = [x for x in said if x.startswith('audit: distill.loss_neck')]
    assert len(faults) == 1 and 'its loss_weight is 0' in faults[0]
    assert not audit_of(runner).is_open
    changes['custom_hooks'] = [dict(type='FirstBatchAuditHook')]
    with pytest.raises(ConfigError, match='its loss_weight is 0'):
        train(make_config(RECOMMENDED, changes))


def test_a_copy_of_a_model_is_not_audited(build, batch, said):
    model = build()
    twin = copy.deepcopy(model)
    (observe,) = twin.distiller.observers
    observe({}, {})  # of the original it would be an error
    assert not said and model.audit.is_open
    losses_of(model, batch)
    assert said and not model.audit.is_open


def test_not_strict_all_losses_are_audited(build, batch, said):
    """One that is never computed, one of weight 0, and one that is right."""
    model = build(
        strict=False,
        **{
            'distiller.distill_losses': dict(loss_lost=dict(type='L2Loss')),
            'distiller.taps': dict(a=NECK, b=NECK),
            'distiller.losses': dict(
                a=[dict(type='FeatureL2Loss', loss_weight=0)],
                b=[dict(type='FeatureL2Loss')],
            ),
            'distiller.active': ['a', 'b'],
        },
    )
    losses_of(model, batch)
    faults = [x.split(': ')[1] for x in said if x.startswith('audit: ')]
    assert faults == ['distill_losses.loss_lost', 'distill.loss_a_featurel2']
    (table,) = [x for x in said if '| audit ' in x]
    assert 'distill.loss_a_featurel2' in table
    assert 'distill.loss_b_featurel2' in table
    assert not model.audit.is_open


def test_a_batch_that_fails_leaves_nothing_behind(build, batch):
    model = build()
    head = model.student.roi_head.bbox_head.fc_cls
    before = len(head._forward_pre_hooks)

    def fail(*args):
        raise MemoryError

    handle = head.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        losses_of(model, batch)
    handle.remove()
    assert len(head._forward_pre_hooks) == before
    assert not model.audit._versions and model.audit.is_open
    losses_of(model, batch)
    assert not model.audit.is_open
