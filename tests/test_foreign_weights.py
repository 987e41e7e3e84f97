"""Files of weights as others write them: taken, or refused in one line."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config, ConfigDict
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_checkpoint
from mmpretrain.registry import MODELS as MMPRETRAIN
from mmrazor.registry import MODELS

from lshfm_mm.algorithms.student_weights import weights_from_files
from lshfm_mm.compat.mmengine import patch_loaders
from lshfm_mm.datasets.check_files import check_weights_files
from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student
from lshfm_mm.export.student import check_weights
from lshfm_mm.teachers.loading import load_teacher
from lshfm_mm.utils.checkpoints import read_state_dict

from .test_classification import classifier

HAS_SAFETENSORS = importlib.util.find_spec('safetensors') is not None


@pytest.fixture(autouse=True)
def _patched():
    """MMEngine as our tools have it."""
    patch_loaders()


@pytest.fixture(scope='module')
def state() -> dict[str, torch.Tensor]:
    """Weights of a classifier that no other has."""
    torch.manual_seed(3)
    model = MMPRETRAIN.build(classifier(4))
    model.init_weights()
    return model.state_dict()


def below(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def zeros(state):
    return {key: torch.zeros_like(value) for key, value in state.items()}


# What wraps the weights in a file -> the prefix that the log names.
FILES = {
    'bare': (lambda x: x, ''),
    'mmengine': (lambda x: {'state_dict': x, 'meta': {}}, ''),
    'ema beside': (lambda x: dict(state_dict=x, model_ema=zeros(x)), ''),
    'swin, deit': (lambda x: {'model': x, 'optimizer': {'state': {}}}, ''),
    'tutorial': (lambda x: {'epoch': 3, 'model_state_dict': x}, ''),
    'ema alone': (lambda x: {'ema': {'module': x, 'updates': 7}}, ''),
    'ddp': (lambda x: {'state_dict': below('module.', x)}, ''),
    'compiled': (lambda x: below('_orig_mod.', x), ''),
    'dino': (lambda x: dict(student=zeros(x), teacher=x), ''),
    'lightning': (lambda x: {'state_dict': below('model.', x)}, 'model.'),
    'semi-supervised': (
        lambda x: below('student.', zeros(x)) | below('teacher.', x),
        'teacher.',
    ),
    'a distillation': (
        lambda x: {'state_dict': below('architecture.', x)},
        'architecture.',
    ),
}  # fmt: skip


@pytest.mark.parametrize('kind', FILES)
def test_a_teacher_reads_the_files_of_others(kind, state, tmp_path):
    wrap, prefix = FILES[kind]
    path = str(tmp_path / 'teacher.pth')
    torch.save(wrap(state), path)
    model = MMPRETRAIN.build(classifier(4))
    said = load_teacher(model, path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert said.startswith(f'loaded {len(state)} of {len(state)} keys from')
    assert (f'{prefix}* of ' in said) == bool(prefix)


def test_a_file_that_a_teacher_cannot_read_is_described(state, tmp_path):
    path = str(tmp_path / 'timm.pth')
    torch.save(
        {'model': {f'blocks.{i}': x for i, x in enumerate(state.values())}},
        path,
    )
    with pytest.raises(ConfigError) as error:
        load_teacher(MMPRETRAIN.build(classifier(4)), path)
    assert str(error.value) == (
        f'teacher_ckpt: {path} does not fit the teacher, of 122 keys 122 '
        f'missing: {", ".join([*state][:5])}, ...; 122 others in their place: '
        f'blocks.0, blocks.1, blocks.2, blocks.3, blocks.4, ...; give the '
        f'checkpoint of this very teacher config'
    )


SWIN = dict(
    type='SwinTransformer',
    embed_dims=8,
    depths=(1, 1),
    num_heads=(1, 2),
    strides=(4, 2),
    out_indices=(0, 1),
)


def official(state):
    """A Swin state dict of mmdet, as Microsoft names its keys."""
    renamed = {}
    for key, value in state.items():
        for ours, theirs in (
            ('stages', 'layers'),
            ('attn.w_msa', 'attn'),
            ('ffn.layers.0.0', 'mlp.fc1'),
            ('ffn.layers.1', 'mlp.fc2'),
            ('embed.projection', 'embed.proj'),
        ):
            key = key.replace(ours, theirs)
        renamed[key] = value
    return renamed


def swin(**kwargs):
    """A student with a Swin of eight channels; its file is read."""
    backbone = MMDET_MODELS.build(dict(SWIN, **kwargs))
    for table in backbone.parameters():  # some are zeros, and none a file's
        torch.nn.init.normal_(table)
    backbone.init_weights()
    return torch.nn.ModuleDict(dict(backbone=backbone))


def test_official_files_reach_the_backbone_that_converts_them(tmp_path):
    torch.manual_seed(3)
    given = swin().backbone.state_dict()
    path = str(tmp_path / 'swin.pth')
    torch.save({'model': official(given)}, path)
    init = ConfigDict(type='Pretrained', checkpoint=path)
    model = dict(type='RetinaNet', backbone=dict(init_cfg=init))
    cfg = Config(dict(model=model))
    check_weights_files(cfg)
    student = swin(init_cfg=init, convert_weights=True)
    key = 'stages.1.blocks.0.attn.w_msa.qkv.weight'
    assert torch.equal(student.backbone.state_dict()[key], given[key])
    (line,), faults, _ = weights_from_files(student)
    assert not faults and line.endswith(f'weights from {path}')


@pytest.mark.parametrize(
    ('checkpoint', 'message'),
    [
        ('http://127.0.0.1:9/r18.pth', 'http://127.0.0.1:9/r18.pth could not'),
        ('torchvision://resnet19', 'MMEngine knows no weights of the name'),
        ('open-mmlab://resnet19', 'MMEngine knows no weights of the name'),
        ('mmcls://resnet19', 'MMEngine knows no weights of the name'),
    ],
)
def test_remote_weights_that_are_not_to_be_had_name_their_key(
    checkpoint, message
):
    init = dict(type='Pretrained', checkpoint=checkpoint)
    model = dict(type='RetinaNet', backbone=dict(init_cfg=init))
    field = 'model.architecture.backbone.init_cfg.checkpoint: '
    with pytest.raises(ConfigError, match=f'^{field}{message}'):
        check_weights_files(Config(dict(model=dict(architecture=model))))


@pytest.mark.parametrize(
    ('init', 'advice'),
    [
        ({}, 'set convert_weights=True beside this init_cfg: its names are '),
        (dict(prefix='net.'), 'give the file of this very network: its names'),
    ],
)
def test_names_that_a_backbone_does_not_find_are_one_line(
    init, advice, make_config, tmp_path
):
    """mmdet's Swin ends in an IndexError, MMEngine in an assertion."""
    path = str(tmp_path / 'swin.pth')
    torch.save({'model': official(swin().backbone.state_dict())}, path)
    init = dict(init, type='Pretrained', checkpoint=path)
    cfg = make_config('faster_rcnn_lshfm').model
    if 'prefix' in init:
        cfg.architecture.backbone.init_cfg = init
    else:
        cfg.architecture.backbone = dict(SWIN, init_cfg=init)
        cfg.architecture.neck.update(in_channels=[8, 16], num_outs=5)
    with pytest.raises(ConfigError) as error:
        MODELS.build(cfg).init_weights()
    said = str(error.value)
    assert said.startswith(
        f'architecture.backbone.init_cfg: {path} gave 0 of its '
    )
    assert f'which would start from scratch; {advice}' in said
    assert 'patch_embed.proj.weight, ' in said


@pytest.mark.parametrize('kind', ['Pretrained', PretrainedInit])
def test_any_usual_file_starts_a_student(kind, state, tmp_path):
    """By its name in the registry, and by its class in the new style."""
    path = str(tmp_path / 'start.pth')
    torch.save({'model': below('module.', state)}, path)
    student = MMPRETRAIN.build(
        dict(classifier(4), init_cfg=dict(type=kind, checkpoint=path))
    )
    student.init_weights()
    for key, value in student.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert weights_from_files(student)[0]


def test_a_prefix_is_named_as_the_init_cfg_needs_it(state, tmp_path):
    path = str(tmp_path / 'moco.pth')
    torch.save({'state_dict': below('module.encoder_q.', state)}, path)
    init = dict(type='Pretrained', checkpoint=path)
    student = MMPRETRAIN.build(dict(classifier(4), init_cfg=init))
    student.init_weights()
    (fault,) = weights_from_files(student)[1]
    (prefix,) = re.findall("add prefix='(.*?)' to this init_cfg", fault)
    student = MMPRETRAIN.build(
        dict(classifier(4), init_cfg=dict(init, prefix=prefix))
    )
    student.init_weights()
    assert torch.equal(student.head.fc.weight, state['head.fc.weight'])


@pytest.mark.parametrize(
    'wrap',
    [
        lambda x: {'model': below('module.', x)},
        lambda x: x,
        lambda x: {'state_dict': x, 'meta': {'epoch': 3}},
    ],
    ids=['model and module.', 'bare', 'mmengine'],
)
def test_a_distillation_is_read_wherever_it_is_taken(
    wrap, make_config, tmp_path
):
    """By load_from, and by the tools that test and export."""
    cfg = make_config('faster_rcnn_lshfm')
    torch.manual_seed(5)
    model = MODELS.build(cfg.model)
    given, path = model.state_dict(), str(tmp_path / 'epoch_1.pth')
    torch.save(wrap(given), path)
    other = MODELS.build(cfg.model)
    load_checkpoint(other, path, 'cpu')
    for key, value in other.state_dict().items():
        assert torch.equal(value, given[key]), key
    check_weights(cfg, path)
    out = tmp_path / 'student.pth'
    export_student(path, str(out), fold=False)
    student = torch.load(out, weights_only=True)['state_dict']
    assert student.keys() == model.student.state_dict().keys()
    for key, value in student.items():
        assert torch.equal(value, given[f'architecture.{key}'])


def test_a_layer_may_have_two_names(make_config, tmp_path):
    """As DDQ's auxiliary branches, whose second one comes with training."""
    cfg, path = make_config('faster_rcnn_student'), str(tmp_path / 'a.pth')
    torch.manual_seed(5)
    with DefaultScope.overwrite_default_scope('mmdet'):
        state = MMDET_MODELS.build(cfg.model).state_dict()
        first = next(x for x in state if x.endswith('weight'))
        torch.save(state | {'second.name': state[first]}, path)
        check_weights(cfg, path)
        torch.save(state | {'second.name': state[first] + 1}, path)
        with pytest.raises(
            ConfigError, match=r'1 of its \d+ have no place in'
        ):
            check_weights(cfg, path)


def test_safetensors_are_read_or_asked_for(state, tmp_path, monkeypatch):
    path = str(tmp_path / 'model.safetensors')
    if HAS_SAFETENSORS:
        from safetensors.torch import save_file  # noqa: PLC0415

        save_file(state, path)
        read = read_state_dict('teacher_ckpt', path)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[x], state[x]) for x in state)
        monkeypatch.setitem(sys.modules, 'safetensors', None)
        monkeypatch.delitem(sys.modules, 'safetensors.torch')
    Path(path).touch()
    with pytest.raises(ConfigError) as error:
        read_state_dict('teacher_ckpt', path)
    assert str(error.value) == (
        f'teacher_ckpt: {path} needs a package that is not installed; pip '
        f'install safetensors, or give a .pth file'
    )
