"""Configs as people write them: new style, mixed, by their path, in chains."""

import copy
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.model import BaseModule, PretrainedInit
from mmrazor.registry import MODELS

from lshfm_mm.algorithms import RoIMimicDistill
from lshfm_mm.cli.upstream import upstream_tool
from lshfm_mm.distillers import LSHFMDistiller
from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student
from lshfm_mm.export.student import student_config
from lshfm_mm.losses import LSHLoss
from lshfm_mm.pairing import write_config
from lshfm_mm.utils.configs import _named, model_config, read_config

from .conftest import read_shapes
from .new_style import write_new_style
from .processes import run_tool

RETINANET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'


@pytest.fixture(scope='module')
def configs(make_config, teacher_config, tmp_path_factory) -> Path:
    """A folder with a student and a teacher of the new style."""
    folder = tmp_path_factory.mktemp('new')
    cfg = make_config('faster_rcnn_student', {'train_cfg.max_epochs': 1})
    cfg.work_dir = str(folder / 'work')
    write_new_style(cfg, folder / 'student.py')
    write_new_style(Config.fromfile(teacher_config), folder / 'teacher.py')
    return folder


@pytest.fixture(scope='module')
def distilled(configs, teacher_checkpoint) -> Path:
    """What make_config writes of the two, in a folder of its own."""
    out = configs / 'mine' / 'distil.py'
    write_config(
        str(configs / 'teacher.py'),
        str(configs / 'student.py'),
        str(out),
        str(teacher_checkpoint),
    )
    return out


def test_the_new_style_goes_all_the_way(distilled, tmp_path):
    """Written, checked, tested, exported; plain mmdet builds what is left."""
    text = distilled.read_text()
    assert 'with read_base():\n    from ..student import *' in text
    assert 'type=RoIMimicDistill' in text
    work = '--work-dir', tmp_path / 'work'
    said = run_tool('tools/train.py', distilled, '--check', *work)
    assert '| inherit: ' in said and 'distill.loss_roi_lsh' in said
    assert 'check: passed, nothing was trained' in said
    model = MODELS.build(read_config('config', str(distilled)).model)
    checkpoint = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, checkpoint)
    said = run_tool('tools/test.py', distilled, checkpoint, *work)
    assert 'coco/bbox_mAP' in said
    out = tmp_path / 'student.pth'
    export_student(str(checkpoint), str(out), config=str(distilled))
    text = out.with_suffix('.py').read_text()
    assert not re.search(r'lshfm_mm\.|mmrazor|custom_imports', text)
    plain = MMDET_MODELS.build(Config.fromfile(out.with_suffix('.py')).model)
    state = torch.load(out, weights_only=True)['state_dict']
    assert not any(plain.load_state_dict(state))


def test_a_students_name_must_be_that_of_a_module(configs, tmp_path):
    student = tmp_path / 'faster-rcnn.py'
    student.write_text((configs / 'student.py').read_text())
    with pytest.raises(ConfigError) as error:
        write_config(
            str(configs / 'teacher.py'), str(student), 'out.py', 'teacher.pth'
        )
    assert str(error.value).startswith('student: ')
    assert str(error.value).endswith(
        'faster-rcnn.py is of the new style and no name of a module, so that '
        'no config can build on it; write _ for - and . in it'
    )


def test_classes_are_types_everywhere(make_config):
    cfg = make_config('faster_rcnn_lshfm')
    cfg.model.type = RoIMimicDistill
    cfg.model.distiller.type = LSHFMDistiller
    cfg.model.distiller.losses = dict(roi=[dict(type=LSHLoss)])
    model = MODELS.build(cfg.model)
    assert [*model.distiller.distill_losses] == ['loss_roi_lsh']


def test_the_new_styles_names_lead_back_to_the_classes(configs):
    """Also where a function hides the module: losses.smooth_l1_loss."""
    model = read_config('config', str(configs / 'student.py')).model
    assert model.rpn_head.loss_bbox.type == 'mmdet.models.losses.L1Loss'
    assert model_config('model', model)['_scope_'] == 'mmdet'


@pytest.mark.parametrize(
    ('name', 'package'),
    [('single_student', 'mmpretrain'), ('faster_rcnn_student', 'mmdet')],
)
def test_the_model_tells_whose_tool_it_is(name, package, tmp_path):
    """Configs of the new style set default_scope=None."""
    path = tmp_path / 'student.py'
    write_new_style(read_shapes(name), path, package)
    assert upstream_tool('train', [str(path)]).__name__ == f'{package}_train'


# One on the other


def test_old_style_on_new_is_read_or_one_line(configs, distilled, tmp_path):
    """One that only imports classes can be a base; with read_base, none."""
    path = tmp_path / 'mine.py'
    base = configs / 'student.py'
    path.write_text(f'_base_ = {str(base)!r}\nmodel = dict(neck=dict(a=7))\n')
    cfg = read_config('config', str(path))
    assert cfg.model.neck.a == 7
    assert cfg.model.type.endswith('.FasterRCNN')
    assert 'FasterRCNN' in cfg.pretty_text and '<class' not in cfg.pretty_text
    path.write_text(f'_base_ = {str(distilled)!r}\n')
    with pytest.raises(ConfigError) as error:
        read_config('config', str(path))
    assert str(error.value).startswith(
        f'config: {path} cannot be read (one of the old style, with _base_, '
        f'and one of the new style, with read_base, cannot be the base of'
    )


def test_a_zoo_config_that_imports_is_read():
    """RepLKNet's has a script in its base, which takes its import along."""
    name = 'mmpretrain::replknet/replknet-31B_32xb64_in1k.py'
    cfg = read_config('teacher', name)
    assert cfg.model.backbone.type == 'RepLKNet'
    tool = upstream_tool('train', [name])
    assert tool.Config.fromfile(cfg.filename).model.type == 'ImageClassifier'


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('model = dict(x=y)', "name 'y' is not defined"),
        ('_base_ = 7', ''),
        ('import torch\nmodel = dict(type=torch.nn.Relu)', 'torch.nn.Relu'),
        ("custom_imports = dict(imports='gone_for_good')", 'gone_for_good'),
        ('with open("x") as f: pass', 'Only `read_base`'),
    ],
)
def test_what_a_config_raises_is_one_line(text, reason, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f'{text}\n')
    with pytest.raises(ConfigError) as error:
        read_config('config', str(path))
    said = str(error.value)
    assert said.startswith(f'config: {path} cannot be read (')
    assert reason in said and '\n' not in said


# By a path, as lists, in chains


def test_a_path_is_a_model(make_config, teacher_config, tmp_path):
    cfg = make_config('faster_rcnn_lshfm')
    student = make_config('faster_rcnn_student')
    student.dump(tmp_path / 'student.py')
    model = dict(
        cfg.model,
        teacher=str(teacher_config),
        architecture=str(tmp_path / 'student.py'),
    )
    plain = student_config(Config(dict(model=model))).model
    assert plain.backbone.base_channels == 4
    built = MODELS.build(model)
    assert built.teacher.backbone.base_channels == 8
    assert built.student.backbone.base_channels == 4
    zoo = model_config('teacher', RETINANET)
    assert (zoo['type'], zoo['_scope_']) == ('RetinaNet', 'mmdet')


@pytest.mark.parametrize('field', ['teacher', 'architecture'])
def test_several_models_are_one_line(field, make_config):
    model = make_config('faster_rcnn_lshfm').model
    model[field] = [model[field], model[field]]
    with pytest.raises(ConfigError) as error:
        MODELS.build(model)
    assert str(error.value).startswith(
        f'{field}: must be one model, as a config or the path of its file, '
        f'but got [{{'
    )


def test_the_student_of_a_distillation_teaches_the_next(make_config, tmp_path):
    """From its config and its training's checkpoint, as they are."""
    cfg = make_config('faster_rcnn_lshfm')
    middle = tmp_path / 'middle.py'
    cfg.dump(middle)
    first = MODELS.build(cfg.model)
    path = str(tmp_path / 'epoch_1.pth')
    torch.save({'state_dict': first.state_dict(), 'meta': {}}, path)
    second = MODELS.build(
        dict(
            copy.deepcopy(cfg.model),
            teacher=dict(cfg_path=str(middle)),
            teacher_ckpt=path,
        )
    )
    given = first.student.state_dict()
    for key, value in second.teacher.state_dict().items():
        assert torch.equal(value, given[key]), key
    assert 'architecture.* of ' in second.teachers[''].origin


def test_make_config_takes_a_distillation_as_teacher_alone(
    distilled, configs, tmp_path
):
    out = tmp_path / 'distil.py'
    (configs / 'next.py').write_text((configs / 'student.py').read_text())
    weights = tmp_path / 'epoch_1.pth'
    weights.touch()
    pair = str(distilled), str(configs / 'next.py'), str(out), str(weights)
    assert 'FasterRCNN -> FasterRCNN' in write_config(*pair)
    assert f'cfg_path={str(distilled)!r}' in out.read_text()
    with pytest.raises(ConfigError) as error:
        write_config(str(distilled), str(distilled), 'x.py', str(weights))
    assert str(error.value) == (
        f'student: {distilled} is the config of a distillation; give that of '
        f'its student alone'
    )


def test_the_types_of_any_package(tmp_path, monkeypatch):
    """A model of one's own is built in the scope that it derives from."""
    (tmp_path / 'my_own.py').write_text(
        'from mmdet.models import RetinaNet\n'
        'class Mine(RetinaNet):\n    """One."""\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = import_module('my_own').Mine
    for kind in ('my_own.Mine', mine):
        assert model_config('teacher', dict(type=kind))['_scope_'] == 'mmdet'
    for kind in ('mmdet.RetinaNett', 'my_own.Gone', 'gone.Mine'):
        with pytest.raises(ConfigError, match='is in none of the registries'):
            model_config('teacher', dict(type=kind))


def test_pretrained_weights_of_the_new_style_stay(tmp_path):
    """MMEngine looks for them last by the name 'Pretrained' alone."""

    class Layer(BaseModule):
        def __init__(self, init_cfg=None):
            super().__init__(init_cfg)
            self.conv = torch.nn.Conv2d(1, 1, 1)
            zero = torch.nn.init.zeros_
            self.conv.init_weights = lambda: zero(self.conv.weight)

    path = str(tmp_path / 'weights.pth')
    weight = torch.ones(1, 1, 1, 1)
    torch.save({'state_dict': {'conv.weight': weight}}, path)
    layer = Layer(_named(dict(type=PretrainedInit, checkpoint=path)))
    layer.init_weights()
    assert layer.conv.weight.item() == 1
