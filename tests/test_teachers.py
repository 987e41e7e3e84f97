"""Several teachers of one student."""

import copy
import time
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.runner import Runner
from mmrazor.registry import MODELS

from lshfm_mm.cli import training
from lshfm_mm.cli.training import evaluate_teacher
from lshfm_mm.cli.unsuited import check_suited
from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student
from lshfm_mm.insight import analyze
from lshfm_mm.insight.report import page
from lshfm_mm.teachers import loading
from lshfm_mm.training import audit
from lshfm_mm.utils.configs import model_config

from .conftest import mmdet_config
from .test_algorithms import losses_of, record

FC = 'roi_head.bbox_head.fc_cls'
BGR = dict(mean=[20.0, 30.0, 40.0], std=[9.0, 8.0, 7.0], bgr_to_rgb=False)
ROI = [dict(type='LSHLoss'), dict(type='RelativeL2Loss')]


@pytest.fixture(scope='module')
def entries(teacher_config, teacher_checkpoint, retina_teacher):
    """Teachers of two kinds, the second with images of its own."""
    retina = Config.fromfile(retina_teacher).model
    retina.data_preprocessor.update(BGR)
    return dict(
        a=dict(
            model=dict(cfg_path=str(teacher_config)),
            ckpt=str(teacher_checkpoint),
        ),
        b=dict(
            model=retina.to_dict(),
            ckpt=str(retina_teacher.with_suffix('.pth')),
        ),
    )


@pytest.fixture
def make(make_config, entries):
    """Config of a Faster R-CNN with two teachers; overrides of its model."""

    def make(weight=1.0, **overrides):
        cfg = make_config('faster_rcnn_lshfm')
        for key in ('teacher', 'teacher_ckpt'):
            cfg.model.pop(key)
        cfg.model.teachers = copy.deepcopy(entries)
        cfg.model.distiller.update(
            taps=dict(
                roi=dict(student=FC, teacher=f'a:{FC}'),
                fpn=dict(student='neck', teacher='b:neck', record='output'),
            ),
            losses=dict(
                roi=copy.deepcopy(ROI),
                fpn=[dict(type='RelativeL2Loss', loss_weight=weight)],
            ),
        )
        cfg.merge_from_dict({f'model.{k}': v for k, v in overrides.items()})
        return cfg

    return make


def built(cfg):
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.train()


def alone(cfg):
    """The first teacher of a config as the only one."""
    cfg = copy.deepcopy(cfg)
    entry = cfg.model.pop('teachers')['a']
    cfg.model.update(teacher=entry.model, teacher_ckpt=entry.ckpt)
    distiller = cfg.model.distiller
    distiller.taps = dict(roi=FC)
    del distiller.losses['fpn']
    return cfg


def trained(cfg, epochs, **overrides):
    """Train in two iterations an epoch, or go on."""
    cfg.merge_from_dict(
        {
            'train_cfg.max_epochs': epochs,
            'train_cfg.val_interval': 99,
            'train_dataloader.batch_size': 6,
            'param_scheduler': [],
            'custom_hooks': [dict(type='ExactResumeHook')],
            **overrides,
        }
    )
    cfg.experiment_name = Path(cfg.work_dir).name + str(time.monotonic_ns())
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_each_teacher_has_its_losses_and_its_images(make, batch):
    """Compared with each model alone, run by hand on the raw batch."""
    model = built(make())
    seen = []
    model.distiller.observers.append(lambda values, taps: seen.append(taps))
    boxes, rois = [], []
    record(model.student.roi_head.bbox_roi_extractor, boxes)
    losses = losses_of(model, batch)
    mimics = {k for k in losses if k.startswith('distill.')}
    kinds = ('roi_lsh', 'roi_relativel2', 'fpn_relativel2')
    assert mimics == {f'distill.loss_{x}' for x in kinds}
    assert all(losses[x] > 0 for x in mimics)
    with torch.no_grad():
        maps = {}
        for name, teacher in model.teachers.items():
            raw = copy.deepcopy(batch)
            data = teacher.model.data_preprocessor(raw, training=True)
            maps[name] = teacher.model.extract_feat(data['inputs'])
        head = model.teachers['a'].model.roi_head
        record(head.bbox_head.fc_cls, rois)
        head._bbox_forward(maps['a'], boxes[-1][0][1])
    [taps] = seen
    [level] = taps['roi'].levels
    torch.testing.assert_close(level.teacher, rois[0][0][0], atol=1e-4, rtol=0)
    assert len(taps['fpn'].levels) == 3
    for level in taps['fpn'].levels:
        expected = maps['b'][level.t_index]
        torch.testing.assert_close(level.teacher, expected, atol=1e-4, rtol=0)
        images = model.teachers['a'].model.data_preprocessor(
            copy.deepcopy(batch), training=True
        )['inputs']
        other = model.teachers['b'].model.extract_feat(images)
        assert not torch.allclose(level.teacher, other[level.t_index], 1e-2)


def test_all_teachers_are_guests(make):
    model = built(make())
    assert list(model.teachers) == ['a', 'b']
    assert not any('teacher' in x or 'retina' in x for x in model.state_dict())
    held = {id(x) for x in model.parameters()} | {
        id(x) for x in model.buffers()
    }
    modules = set(model.modules())
    for teacher in model.teachers.values():
        assert not held & {id(x) for x in teacher.model.parameters()}
        assert teacher.model not in modules and teacher.images not in modules
        teacher.model.train()  # somebody else's mistake
    assert not any(x.training for x in model.train().teacher.modules())
    # An EMA copy shares them, and leaves them where they are.
    average = copy.deepcopy(model).to(torch.float64)
    assert average.teacher is model.teacher
    tensors = [
        x
        for teacher in model.teachers.values()
        for x in (*teacher.model.parameters(), *teacher.images.buffers())
    ]
    assert {x.dtype for x in tensors} == {torch.float32}
    model.to(torch.float64)
    for teacher in model.teachers.values():
        parts = *teacher.model.parameters(), *teacher.images.buffers()
        assert {x.dtype for x in parts} == {torch.float64}


def test_weight_0_on_one_is_the_other_alone(make):
    both = make(weight=0.0)
    runs = [trained(x, 1) for x in (both, alone(both))]
    states = [x.model.state_dict() for x in runs]
    assert states[0].keys() - states[1].keys() == set()
    for key, value in states[1].items():
        assert torch.equal(value, states[0][key]), key
    logs = [x.message_hub.log_scalars for x in runs]
    for key in ('train/loss', 'train/distill.loss_roi_lsh'):
        values = [x[key].data[0].tolist() for x in logs]
        assert values[0] == values[1] and len(values[0]) == 2
    fpn = logs[0]['train/distill.loss_fpn_relativel2'].data[0]
    assert fpn.tolist() == [0, 0]
    # Else this test would prove nothing.
    state = trained(make(), 1).model.state_dict()
    assert not all(torch.equal(x, state[k]) for k, x in states[1].items())


def test_it_resumes_bit_for_bit_and_exports(make, monkeypatch, tmp_path):
    """With audit, calibration and alignment, each of which says whose."""
    lines = []
    monkeypatch.setattr(
        audit, 'print_log', lambda x, *_, **__: lines.append(x)
    )
    median = {
        'distiller.losses.fpn': [
            dict(type='LSHLoss', std=0.1, num_hashes=64, bias='median')
        ]
    }
    hooks = ('ExactResume', 'FirstBatchAudit', 'LSHCalibration', 'Alignment')
    given = [dict(type=f'{x}Hook') for x in hooks]
    given[-1]['interval'] = 1
    whole, parts = make(**median), make(**median)
    runner = trained(whole, 2, custom_hooks=given)
    bias = runner.model.distiller.distill_losses.loss_fpn_lsh.bias
    assert bias.unique().numel() > 60
    for key in ('angle', 'norm_ratio', 'equal_codes'):
        for tap in ('roi', 'fpn'):
            assert f'train/{tap}.{key}' in runner.message_hub.log_scalars
    [table] = [x for x in lines if 'what there is' in x]
    rows = [x.split('|')[1:3] for x in table.splitlines() if '|' in x]
    said = {x.strip(): y.strip() for x, y in rows if x.strip()}
    assert said['teacher a'].endswith('teacher.pth')
    assert said['teacher b'].startswith('loaded ')
    assert f'teacher: input of a:{FC}, ' in table
    assert 'teacher: output of b:neck, ' in table

    trained(parts, 1, custom_hooks=given)
    trained(parts, 2, custom_hooks=given, resume=True)
    paths = [Path(x.work_dir) / 'epoch_2.pth' for x in (whole, parts)]
    one, two = (torch.load(x, weights_only=True)['state_dict'] for x in paths)
    assert one.keys() == two.keys()
    assert all(torch.equal(x, two[key]) for key, x in one.items())

    whole.dump(tmp_path / 'config.py')
    out = str(tmp_path / 'student.pth')
    export_student(str(paths[0]), out, config=str(tmp_path / 'config.py'))
    plain = MMDET_MODELS.build(Config.fromfile(tmp_path / 'student.py').model)
    state = torch.load(out, weights_only=True)
    plain.load_state_dict(state['state_dict'])


def test_settings_of_one_teacher_are_not_of_the_other(make, batch):
    changes = {
        'teachers.a.channels_last': True,
        'teachers.b.precision': 'bfloat16',
    }
    model = built(make(**changes))
    teachers = [model.teachers[x].model for x in 'ab']
    formats = [
        x.backbone.conv1.weight.is_contiguous(
            memory_format=torch.channels_last
        )
        and not x.backbone.conv1.weight.is_contiguous()
        for x in teachers
    ]
    assert formats == [True, False]
    calls = [[], []]
    for teacher, log in zip(teachers, calls, strict=True):
        record(teacher.neck, log)
    losses_of(model, batch)
    assert [x[0][1][0].dtype for x in calls] == [torch.float32, torch.bfloat16]


def test_weights_are_loaded_strictly_and_named(
    make, entries, monkeypatch, tmp_path
):
    lines = []
    monkeypatch.setattr(
        loading, 'print_log', lambda x, *_, **__: lines.append(x)
    )
    content = torch.load(entries['b']['ckpt'], weights_only=True)
    content['state_dict'].pop('bbox_head.retina_reg.bias')
    path = str(tmp_path / 'less.pth')
    torch.save(content, path)
    with pytest.raises(ConfigError) as error:
        MODELS.build(make(**{'teachers.b.ckpt': path}).model)
    assert str(error.value).startswith(
        f'teachers.b.ckpt: {path} does not fit the teacher, of '
    )
    loose = {'teachers.b.ckpt': path, 'teachers.b.strict': False}
    origins = {
        k: x.origin
        for k, x in MODELS.build(make(**loose).model).teachers.items()
    }
    assert entries['a']['ckpt'] in origins['a'] and path in origins['b']
    assert {f'teacher {k}: {origins[k]}' for k in 'ab'} <= {*lines}


def test_it_inherits_from_the_one_that_is_named(make):
    model = built(make(inherit='a'))
    head = model.student.roi_head.bbox_head.fc_cls.weight
    given = model.teachers['a'].model.roi_head.bbox_head.fc_cls.weight
    assert torch.equal(head, given)


def test_two_dense_teachers(make_config, retina_teacher, batch, tmp_path):
    """Class tower of one, neck of another kind, width and normalisation."""
    rtm = mmdet_config('rtmdet/rtmdet_tiny_8xb32-300e_coco.py').model
    rtm.backbone.update(init_cfg=None, widen_factor=0.125)
    rtm.neck.update(in_channels=[32, 64, 128], out_channels=32)
    rtm.bbox_head.update(in_channels=32, feat_channels=32)
    torch.save(MMDET_MODELS.build(rtm).state_dict(), tmp_path / 'rtm.pth')
    cfg = make_config('retinanet_lshfm')
    for key in ('teacher', 'teacher_ckpt'):
        cfg.model.pop(key)
    cfg.model.teachers = dict(
        retina=dict(
            model=str(retina_teacher),
            ckpt=str(retina_teacher.with_suffix('.pth')),
        ),
        rtm=dict(model=rtm, ckpt=str(tmp_path / 'rtm.pth')),
    )
    cls = 'bbox_head.retina_cls'
    cfg.model.distiller.update(
        taps=dict(
            cls=dict(
                student=cls, teacher=f'retina:{cls}', weights='confidence'
            ),
            neck=dict(student='neck', teacher='rtm:neck', record='output'),
        ),
        losses=dict(
            cls=[dict(type='LSHLoss', num_hashes=64)],
            neck=[dict(type='RelativeL2Loss')],
        ),
        connectors=dict(neck=dict(type='ConvConnector')),
    )
    model = built(cfg)
    connector = model.distiller.connectors.neck
    assert {
        x.weight.shape for x in connector.modules() if hasattr(x, 'weight')
    }
    losses = losses_of(model, batch)
    assert losses['distill.loss_cls_lsh'] > 0
    assert losses['distill.loss_neck_relativel2'] > 0
    # The head of RTMDet is not tapped, and does not run.
    calls = []
    record(model.teachers['rtm'].model.bbox_head, calls)
    losses_of(model, batch)
    assert not calls


WRONG = {
    'a tap without a name': (
        {'distiller.taps.fpn.teacher': 'neck'},
        "taps.fpn: there are the teachers ['a', 'b'], and 'neck' is of none "
        "of them; did you mean 'b:neck' or 'a:neck'?",
    ),
    'an unknown teacher': (
        {'distiller.taps.fpn.teacher': 'c:neck'},
        "taps.fpn: there are the teachers ['a', 'b'], and 'c:neck' is of none "
        "of them; did you mean 'b:neck' or 'a:neck'?",
    ),
    'an unknown layer': (
        {'distiller.taps.fpn.teacher': 'b:nek'},
        "taps.fpn: the teacher has no layer 'b:nek'; did you mean 'b:neck'",
    ),
    'a teacher without a tap': (
        {'distiller.active': ['roi']},
        "teachers.b: no tap is of it; add one, such as dict(student='neck', "
        "teacher='b:neck'), or remove it",
    ),
    'both forms': (
        {'teacher': dict(cfg_path='teacher.py')},
        'teachers: stands beside teacher; write model into the entry of its '
        'teacher, or leave teachers out',
    ),
    'a setting of the one': (
        {'teacher_precision': 'bfloat16'},
        'teachers: stands beside teacher_precision; write precision into the '
        'entry of its teacher, or leave teachers out',
    ),
    'an unknown key': (
        {'teachers.a.checkpoint': 'a.pth'},
        "teachers.a: takes no 'checkpoint'; did you mean 'ckpt'?",
    ),
    'no dict': (
        {'teachers': ['a.py', 'b.py']},
        'teachers: must be a dict such as dict(a=dict(model=...',
    ),
    'an entry that is no dict': (
        {'teachers.a': 'a.py'},
        "teachers.a: must be a dict with ['model', ",
    ),
    'a name that cannot be': (
        {'teachers': dict(modules=dict(model='a.py'))},
        "teachers: 'modules' cannot be the name of a teacher; take letters, ",
    ),
    'a name that a model has': (
        {'teachers': dict(train_step=dict(model='a.py'))},
        "teachers: 'train_step' cannot be the name of a teacher; take ",
    ),
    'an unknown teacher of tokens': (
        {
            'distiller.taps.fpn.teacher': 'c:neck',
            'distiller.teacher_connectors': dict(fpn=dict(type='TokensToMap')),
        },
        "taps.fpn: there are the teachers ['a', 'b'], and 'c:neck' is of none",
    ),
    'no model': (
        {'teachers.b': dict(_delete_=True, ckpt='b.pth')},
        'teachers.b.model: must be one model, as a config or the path of its '
        'file, but got None',
    ),
    'no weights': (
        {'teachers.b.ckpt': None},
        'teachers.b.ckpt: is None, the teacher would be random; give',
    ),
    'a precision': (
        {'teachers.b.precision': 'half'},
        "teachers.b.precision: must be one of (None, 'float32', ",
    ),
    'whose weights': (
        {'inherit': True},
        "inherit: must be one of (False, 'a', 'b'), but got True",
    ),
}


@pytest.mark.parametrize('wrong', WRONG)
def test_errors_name_the_teacher(wrong, make):
    changes, message = WRONG[wrong]
    cfg = make()
    plain = {f'model.{k}': v for k, v in changes.items()}
    cfg.merge_from_dict(plain)
    with pytest.raises(ConfigError) as error:
        MODELS.build(cfg.model)
    assert str(error.value).startswith(message), error.value


def test_the_only_teacher_has_no_name(make):
    cfg = alone(make())
    cfg.model.distiller.taps = dict(roi=dict(student=FC, teacher=f'a:{FC}'))
    with pytest.raises(ConfigError, match=f"did you mean '{FC}'"):
        MODELS.build(cfg.model)


def test_rois_need_one_teacher_that_pools_them(make, entries):
    cfg = make()
    cfg.model.teachers = dict(b=entries['b'])
    del cfg.model.distiller.taps['roi'], cfg.model.distiller.losses['roi']
    with pytest.raises(ConfigError, match='^teachers.b.model: RoIMimicDist'):
        MODELS.build(cfg.model)


def test_a_loop_of_one_teacher_is_refused(make):
    cfg = make()
    cfg.val_cfg = dict(type='mmrazor.SingleTeacherDistillValLoop')
    with pytest.raises(ConfigError, match="one teacher, and there are .'a', "):
        check_suited(cfg)


def test_each_teacher_is_evaluated(make, entries, monkeypatch, tmp_path):
    """By the boxes that it finds: then the second finds none, and is named."""
    lines = []
    monkeypatch.setattr(training, 'print_log', lambda x, _: lines.append(x))
    content = torch.load(entries['b']['ckpt'], weights_only=True)
    path = str(tmp_path / 'teacher.pth')
    cfg = make(**{'teachers.b.ckpt': path})
    cfg.val_evaluator.metric = 'proposal'
    bias = content['state_dict']['bbox_head.retina_cls.bias']
    bias.fill_(0)
    torch.save(content, path)
    found = evaluate_teacher(cfg)
    recalls = [found[f'{x}:coco/AR@1000'] for x in 'ab']
    assert all(0 < x < 1 for x in recalls) and recalls[0] != recalls[1]
    for line, name in zip(lines, 'ab', strict=True):
        assert line.startswith(f'teacher {name} on the validation set: coco/')
    bias.fill_(-1e3)
    torch.save(content, path)
    with pytest.raises(ConfigError, match='^teachers.b.ckpt: the teacher sco'):
        evaluate_teacher(cfg)


@pytest.fixture
def classifiers(tmp_path):
    """Teachers without a head, and with one for another task."""
    entries = {}
    for name, head in (
        ('headless', None),
        ('sorts', dict(type='LinearClsHead', num_classes=6, in_channels=32)),
    ):
        model = dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='ResNet', depth=18, base_channels=4),
            neck=dict(type='GlobalAveragePooling'),
            head=head,
            data_preprocessor=dict(num_classes=6),
        )
        config = model_config('model', model)
        weights = MODELS.build(config).state_dict()
        path = str(tmp_path / f'{name}.pth')
        torch.save({'state_dict': weights}, path)
        entries[name] = dict(model=model, ckpt=path)
    return entries


def test_teachers_that_cannot_be_evaluated_are_left_out(
    make, entries, classifiers, monkeypatch, tmp_path
):
    lines = []
    monkeypatch.setattr(training, 'print_log', lambda x, _: lines.append(x))
    other = copy.deepcopy(entries['a'])
    path = other['model']['cfg_path']
    other['model'] = Config.fromfile(path).model
    other['model']['roi_head']['bbox_head']['num_classes'] = 9
    nine = MODELS.build(model_config('model', other['model']))
    other['ckpt'] = str(tmp_path / 'nine.pth')
    torch.save({'state_dict': nine.state_dict()}, other['ckpt'])
    cfg = make()
    cfg.val_evaluator.metric = 'proposal'
    cfg.model.teachers = dict(classifiers, nine=other, a=entries['a'])
    found = evaluate_teacher(cfg)
    assert {x.split(':')[0] for x in found} == {'a'}
    whose = [x.split(':')[0] for x in lines]
    assert whose == [
        *(f'teacher {x} is not evaluated' for x in (*classifiers, 'nine')),
        'teacher a on the validation set',
    ]
    assert 'classes' in lines[2] and "no head for the student's" in lines[1]
    cfg.model.teachers = dict(nine=other)
    with pytest.raises(ConfigError, match='is 9, and the data have 6 classes'):
        evaluate_teacher(cfg)
    cfg.model.teachers = classifiers
    with pytest.raises(ConfigError, match='^teachers.sorts.model: ImageClas'):
        evaluate_teacher(cfg)


def analyzed(cfg, folder):
    """What tools/analyze.py finds of a student of random weights."""
    torch.manual_seed(0)
    student = MODELS.build(cfg.model.architecture)
    torch.save({'state_dict': student.state_dict()}, folder / 'student.pth')
    cfg.dump(folder / 'config.py')
    return analyze(
        str(folder / 'config.py'),
        {'mine': str(folder / 'student.pth')},
        num_images=2,
        images=1,
    )


def test_teachers_for_another_task_are_compared(make, classifiers, tmp_path):
    """And a tap on the student's RPN, beside one on its RoIs."""
    cfg = make()
    cfg.model.teachers['c'] = classifiers['sorts']
    rpn, c4 = 'rpn_head.rpn_conv', 'backbone.layer3'
    taps = dict(
        rpn=dict(student=rpn, teacher='b:neck', record='output'),
        c=dict(student=c4, teacher=f'c:{c4}', record='output'),
    )
    distiller = cfg.model.distiller
    distiller.taps.update(taps)
    distiller.losses.update({x: [dict(type='RelativeL2Loss')] for x in taps})
    found, _ = analyzed(cfg, tmp_path)
    assert {*found['taps']} == {'roi', 'fpn', 'rpn', 'c'}
    assert found['taps']['rpn']['students']['mine']['all']['count'] > 0
    assert set(found['metrics']['teacher c']) == {'parameters'}
    shown = found['shown'][0]['predictions']
    assert list(shown) == ['teacher a', 'teacher b', 'mine']


def test_the_report_says_whose(make, tmp_path):
    cfg = make()
    found, images = analyzed(cfg, tmp_path)
    names = ['teacher a', 'teacher b', 'mine']
    assert list(found['metrics']) == names
    assert list(found['shown'][0]['predictions']) == names
    layers = {k: x['teacher_layer'] for k, x in found['taps'].items()}
    assert layers == dict(roi=f'a:{FC}', fpn='b:neck')
    assert found['files']['teacher b']['path'] == cfg.model.teachers.b.ckpt
    text = page(found, images)
    assert 'teacher <code>b:neck</code>' in text
