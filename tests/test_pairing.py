"""make_config: what it chooses, writes and refuses; and that it trains."""

import math
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmdet.apis import init_detector
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.runner import Runner
from mmrazor.registry import MODELS as MMRAZOR_MODELS

from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student
from lshfm_mm.export.student import student_config
from lshfm_mm.pairing import write_config
from lshfm_mm.pairing.expected import expectation
from lshfm_mm.pairing.inspect import _has_one_label, inspect_config
from lshfm_mm.pairing.pair import Pairing, choose_pairing
from lshfm_mm.pairing.write import _classes
from lshfm_mm.utils.configs import read_config

from .test_detectors import cascade, faster, mmdet_config, retinanet, shrink

REPO = Path(__file__).parent.parent
CAFFE = dict(
    mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False
)


@pytest.fixture
def write(tmp_path, make_config):
    """Write the configs of a pair and what distils them; read it back."""

    def make(teacher, student, **kwargs):
        for name, model in (('teacher', teacher), ('student', student)):
            cfg = make_config('faster_rcnn_student')
            cfg.model = model
            cfg.dump(tmp_path / f'{name}.py')
        out = tmp_path / 'distilled.py'
        weights = tmp_path / 'teacher.pth'
        weights.touch()
        kwargs.setdefault('teacher_ckpt', str(weights))
        write_config(
            str(tmp_path / 'teacher.py'),
            str(tmp_path / 'student.py'),
            str(out),
            **kwargs,
        )
        return Config.fromfile(out)

    return make


def losses_in(cfg, tap):
    return [x.type for x in cfg.model.distiller.losses[tap]]


def test_two_stage_detectors_mimic_rois(write):
    cfg = write(faster(8), faster(4))
    assert cfg.model.type == 'RoIMimicDistill'
    assert cfg.model.distiller.taps == dict(
        roi='roi_head.bbox_head.shared_fcs.1',
        fpn=dict(layer='neck', record='output', weights='balanced'),
    )
    assert cfg.model.distiller.losses == dict(
        roi=[
            dict(type='LSHLoss', loss_weight=4),
            dict(type='RelativeL2Loss', loss_weight=4),
        ],
        fpn=[dict(type='RelativeL2Loss')],
    )
    assert cfg.model.inherit
    assert cfg.train_cfg.max_epochs == 7  # the student's schedule


def test_the_weight_beside_rois_is_a_quarter(write):
    losses = write(faster(8), faster(4), beta=2).model.distiller.losses
    assert [x.loss_weight for y in losses.values() for x in y] == [2, 2, 0.5]


def test_necks_of_other_widths_are_not_mimicked_beside_rois(write, tmp_path):
    cfg = write(faster(8), faster(8, neck=32))
    assert 'fpn' not in cfg.model.distiller.taps
    assert 'fpn' not in cfg.model.distiller.losses
    text = ' '.join((tmp_path / 'distilled.py').read_text().split())
    assert 'without L2 on the necks, which differ in shape' in text


def said_of(folder):
    """What the study has of the recommended recipe of a written pair."""
    teacher, student = (
        inspect_config(x, read_config(x, str(folder / f'{x}.py')))
        for x in ('teacher', 'student')
    )
    pairing = choose_pairing(student, teacher, None, 'recommended', None, True)
    return expectation(pairing, student, inherit=True)


def shares(said):
    return re.findall(r'\d+ %', said)


def test_a_share_of_the_gap_is_told_of_the_recipe_that_had_it(write, tmp_path):
    write(faster(8), faster(4))
    assert shares(said_of(tmp_path)) == ['77 %', '27 %', '58 %', '46 %']
    write(retinanet(8), retinanet(4), force=True)
    alike = ['84 %', '30 %', '62 %']
    assert shares(said_of(tmp_path)) == alike
    other = retinanet(4)
    other.type = 'SingleStageDetector'  # was not studied, has the recipe
    write(retinanet(8), other, force=True)
    assert shares(said_of(tmp_path)) == [*alike, '82 %', '19 %', '84 %']


def test_no_share_is_told_of_another_recipe(write, tmp_path):
    one = faster(8)
    one.roi_head.bbox_head.update(type='ConvFCBBoxHead', num_shared_fcs=1)
    for models in ((faster(8), faster(8, neck=32)), (one, one)):
        write(*models, force=True)
        assert not said_of(tmp_path)
    lshl2 = ["dict(type='LSHLoss')", "dict(type='RelativeL2Loss')"]
    maps = "dict(layer='neck', record='output', normalize=True)"
    pairing = Pairing('', {'fpn': maps}, {}, {'fpn': lshl2})
    path = str(tmp_path / 'student.py')
    view = inspect_config('student', read_config('student', path))
    assert not expectation(pairing, view, inherit=True)
    write(faster(8), faster(4), force=True)
    cfg = Config.fromfile(path)
    cfg.load_from = str(tmp_path / 'teacher.pth')  # in the head's place
    cfg.dump(path)
    out = str(tmp_path / 'again.py')
    teacher = str(tmp_path / 'teacher.py')
    said = write_config(teacher, path, out, cfg.load_from)
    assert 'gap' not in said


@pytest.mark.parametrize(
    ('head', 'settings', 'expected'),
    [
        ('LinearClsHead', {}, True),
        ('StackedLinearClsHead', dict(mid_channels=[4]), True),
        ('VisionTransformerClsHead', {}, True),
        ('MultiLabelLinearClsHead', {}, False),
        ('CSRAClsHead', dict(num_heads=1, lam=0.1), False),
        ('MAEPretrainHead', None, None),
    ],
)
def test_a_head_tells_how_many_labels_an_image_has(head, settings, expected):
    config = dict(type=f'mmpretrain.{head}')
    if settings is None:
        config['loss'] = dict(
            type='mmpretrain.PixelReconstructionLoss', criterion='L2'
        )
    else:
        config |= dict(num_classes=3, in_channels=8, **settings)
    assert _has_one_label(MMRAZOR_MODELS.build(config)) is expected


def test_one_label_is_told_of_a_head_of_two_layers(tmp_path):
    """By its base class, whatever its name."""
    out, weights = tmp_path / 'cls.py', tmp_path / 'teacher.pth'
    weights.touch()
    said = write_config(
        'mmpretrain::mobilenet_v3/mobilenet-v3-small_8xb128_in1k.py',
        'mmpretrain::mobilenet_v3/mobilenet-v3-small-050_8xb128_in1k.py',
        str(out),
        str(weights),
    )
    losses = Config.fromfile(out).model.distiller.losses.pooled
    assert [x.type for x in losses] == ['LSHLoss', 'RelativeL2Loss']
    assert shares(said) == ['12 %']


def test_where_fcs_differ_or_there_is_one_the_class_layer_is_mimicked(
    write, tmp_path
):
    teacher = faster(8)
    teacher.roi_head.bbox_head.fc_out_channels *= 2
    model = write(teacher, faster(4)).model
    assert model.distiller.taps.roi == 'roi_head.bbox_head.fc_cls'
    assert [*model.distiller.connectors] == ['roi']
    text = ' '.join((tmp_path / 'distilled.py').read_text().split())
    assert 'not at roi_head.bbox_head.shared_fcs.1, which differs' in text
    one = faster(8)
    one.roi_head.bbox_head.update(type='ConvFCBBoxHead', num_shared_fcs=1)
    for models in ((one, one), (one, faster(4)), (faster(8), one)):
        model = write(*models, force=True).model
        assert model.distiller.taps.roi == 'roi_head.bbox_head.fc_cls'


def test_a_tap_that_is_asked_for_is_the_only_one(write):
    cfg = write(faster(8), faster(4), tap='roi')
    assert [*cfg.model.distiller.taps] == [*cfg.model.distiller.losses]
    assert [*cfg.model.distiller.taps] == ['roi']


def test_only_the_recommended_recipe_mimics_the_neck_beside_rois(write):
    losses = write(faster(8), faster(4), loss='lshl2').model.distiller.losses
    assert [x.loss_weight for x in losses.pop('roi')] == [7, 7]
    assert not losses
    for loss in ('lshl2', 'lsh', 'l2'):
        cfg = write(faster(8), faster(4), loss=loss, force=True)
        assert cfg.model.distiller.taps == dict(
            roi='roi_head.bbox_head.fc_cls'
        )


def test_a_data_set_that_may_order_its_classes_otherwise(tmp_path, write):
    write(faster(8), faster(4))
    cfg = Config.fromfile(tmp_path / 'teacher.py')
    cfg.train_dataloader.dataset.metainfo = dict(classes=tuple('abcdef'))
    cfg.dump(tmp_path / 'other.py')
    out = tmp_path / 'other_distilled.py'
    write_config(
        str(tmp_path / 'other.py'),
        str(tmp_path / 'student.py'),
        str(out),
        str(tmp_path / 'teacher.pth'),
    )
    assert not Config.fromfile(out).model.inherit
    assert 'order their classes' in out.read_text()


def test_cwd_mimics_the_maps_of_the_necks(write, batch):
    cfg = write(faster(8), faster(4), loss='cwd')
    assert cfg.model.type == 'FeatureMimicDistill' and cfg.model.inherit
    distiller = cfg.model.distiller
    assert distiller.taps == dict(fpn=dict(layer='neck', record='output'))
    loss = dict(type='ChannelWiseDivergence', loss_weight=10)
    assert distiller.losses == dict(fpn=[loss])  # with RoIs
    # Necks that differ; a tap that is asked for, with its window left alone.
    for teacher in (faster(8, neck=32), retinanet(8)):
        assert write(teacher, faster(4), loss='cwd', force=True)
    loss = dict(type='ChannelWiseDivergence', loss_weight=160)
    for tap, name in ((None, 'fpn'), ('dense', 'cls')):
        cfg = write(
            retinanet(8), retinanet(4), tap=tap, loss='cwd', force=True
        )
        assert cfg.model.distiller.losses == {name: [loss]}


def test_a_weight_of_0_writes_the_control(write):
    cfg = write(faster(8), faster(4), beta=0)
    assert cfg.model.inherit
    losses = cfg.model.distiller.losses.values()
    assert [x.loss_weight for y in losses for x in y] == [0, 0, 0]


def test_what_an_heir_keeps_is_named(write, tmp_path):
    teacher = faster(8)
    teacher.roi_head.bbox_head.fc_out_channels *= 2
    assert write(teacher, faster(4)).model.inherit
    text = ' '.join((tmp_path / 'distilled.py').read_text().split())
    assert (
        'outside the backbone are taken, not those of '
        'neck.lateral_convs.0.conv, neck.lateral_convs.1.conv, '
        'neck.lateral_convs.2.conv, neck.lateral_convs.3.conv, '
        'roi_head.bbox_head.fc_cls, roi_head.bbox_head.fc_reg, '
        'roi_head.bbox_head.shared_fcs.0, roi_head.bbox_head.shared_fcs.1. '
    ) in text


@pytest.mark.parametrize(
    ('changes', 'inherits'),
    [
        ({}, True),
        (dict(data_root='data/other'), False),
        (dict(classes=['b', 'a']), False),
    ],
)
def test_classes_of_the_same_files_have_one_order(tmp_path, changes, inherits):
    """A folder a class, of mmpretrain, says itself which there are."""
    paths = []
    for name, depth in (('teacher', 34), ('student', 18)):
        cfg = read_config(
            name, f'mmpretrain::resnet/resnet{depth}_8xb32_in1k.py'
        )
        cfg.train_dataloader.dataset = dict(
            type='CustomDataset',
            data_root='data/mine',
            pipeline=[dict(t=name)],
        )
        if name == 'student':
            cfg.train_dataloader.dataset.update(changes)
        paths.append(str(tmp_path / f'{name}.py'))
        cfg.dump(paths[-1])
    out, weights = tmp_path / 'out.py', tmp_path / 'teacher.pth'
    weights.touch()
    write_config(*paths, str(out), str(weights))
    assert Config.fromfile(out).model.inherit == inherits


def test_classes_that_mmpretrain_is_given_are_those_that_count():
    data = dict(type='ImageNet', data_root='x', classes=['b', 'a'])
    cfg = Config(
        dict(train_dataloader=dict(dataset=data), default_scope='mmpretrain')
    )
    assert _classes(cfg) == ['b', 'a']


def test_cascades_mimic_stage_by_stage(write):
    cfg = write(cascade(8), cascade(4))
    assert cfg.model.distiller.taps == {
        **{
            f'roi{i}': f'roi_head.bbox_head.{i}.shared_fcs.1' for i in range(3)
        },
        'fpn': dict(layer='neck', record='output', weights='balanced'),
    }
    mixed = write(cascade(8), faster(4), force=True)
    assert mixed.model.distiller.taps.roi == dict(
        student='roi_head.bbox_head.shared_fcs.1',
        teacher='roi_head.bbox_head.0.shared_fcs.1',
    )


@pytest.mark.parametrize(
    ('width', 'hashes', 'share'),
    [(32, 4 * 9 * 32, '4'), (256, 4096, '1.8')],  # 4096 / (9 * 256) = 1.78
)
def test_dense_heads_mimic_the_class_tower(write, width, hashes, share):
    fcos = shrink('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 8, neck=32)
    fcos.bbox_head.feat_channels = width
    cfg = write(fcos, retinanet(4), loss='lshl2')
    assert cfg.model.type == 'FeatureMimicDistill'
    assert cfg.model.distiller.taps.cls == dict(
        student='bbox_head.retina_cls', teacher='bbox_head.conv_cls'
    )
    assert cfg.model.distiller.losses.cls == [
        dict(type='LSHLoss', num_hashes=hashes, loss_weight=7),
        dict(type='FeatureL2Loss', loss_weight=7),
    ]
    assert (
        f'# LSHLoss: {share} hashes per entry of the 3 x 3 window of {width} '
        f'channels.\n'
    ) in cfg.text
    assert cfg.model.distiller.connectors.cls == dict(
        type='ConvConnector', in_channels=16, out_channels=width
    )
    assert not cfg.model.inherit  # the paper does not


@pytest.mark.parametrize(
    ('width', 'hashes'),
    [(64, 1024), (256, 9 * 256 // 2)],  # at least 1024; half an entry
)
def test_a_dense_head_of_its_own_has_fewer_hashes(write, width, hashes):
    fcos = shrink('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 8, neck=32)
    fcos.bbox_head.feat_channels = width
    losses = write(fcos, retinanet(4)).model.distiller.losses.cls
    assert losses == [
        dict(type='LSHLoss', num_hashes=hashes, loss_weight=4),
        dict(type='RelativeL2Loss', loss_weight=4),
    ]


@pytest.mark.parametrize('beta', [None, 3])
def test_an_inherited_dense_head_mimics_by_cwd(write, beta, tmp_path):
    """One of its own, for which the study found other losses, does not."""
    cfg = write(retinanet(8), retinanet(4), beta=beta)
    assert cfg.model.inherit
    distiller = cfg.model.distiller
    assert distiller.taps == dict(fpn=dict(layer='neck', record='output'))
    loss = dict(type='ChannelWiseDivergence', loss_weight=beta or 160)
    assert distiller.losses == dict(fpn=[loss])
    (tmp_path / 'own.pth').touch()
    own = dict(student_ckpt=str(tmp_path / 'own.pth'), force=True)
    own = write(retinanet(8), retinanet(4), **own)
    asked = write(retinanet(8), retinanet(4), tap='dense', force=True)
    for cfg, inherits in ((own, False), (asked, True)):
        assert cfg.model.inherit == inherits
        assert cfg.model.distiller.taps == dict(cls='bbox_head.retina_cls')
        assert cfg.model.distiller.losses.cls == [
            dict(type='LSHLoss', num_hashes=4 * 16 * 9, loss_weight=4),
            dict(type='RelativeL2Loss', loss_weight=4),
        ]


@pytest.mark.parametrize('loss', ['recommended', 'lshl2'])
@pytest.mark.parametrize('mine', [None, dict(max_norm=5), 'none'])
@pytest.mark.parametrize('new_style', [False, True])
def test_cwd_clips_gradients_where_nobody_says_so(
    loss, mine, new_style, tmp_path, write
):
    """Of a student's optimizer that is mmdet's: SGD that clips nothing."""
    write(retinanet(8), retinanet(4))
    cfg = read_config('student', str(tmp_path / 'student.py'))
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
    if mine:
        wrapper['clip_grad'] = None if mine == 'none' else mine
    cfg.optim_wrapper = wrapper
    cfg.dump(tmp_path / 'student.py')
    student = tmp_path / 'student.py'
    if new_style:
        (tmp_path / 'lazy.py').write_text(
            'from mmengine.config import read_base\n'
            'with read_base():\n    from .student import *\n'
        )
        student = tmp_path / 'lazy.py'
    write_config(
        str(tmp_path / 'teacher.py'),
        str(student),
        str(tmp_path / 'clipped.py'),
        str(tmp_path / 'teacher.pth'),
        loss=loss,
    )
    found = Config.fromfile(tmp_path / 'clipped.py').optim_wrapper
    if mine is None and loss == 'recommended':
        assert found.clip_grad == dict(max_norm=35)
    else:
        assert found.get('clip_grad') == wrapper.get('clip_grad')
    assert found.optimizer == dict(type='SGD', lr=0.01)


def test_heads_of_two_stages_do_not_take_cwd_for_it(write):
    cfg = write(faster(8), faster(4), tap='fpn')
    assert cfg.model.inherit
    kinds = [x.type for x in cfg.model.distiller.losses.fpn]
    assert kinds == ['LSHLoss', 'RelativeL2Loss']


def test_a_neck_of_several_parts(write):
    """As ATSS with DyHead has."""
    models = []
    for width in (8, 4):
        model = retinanet(width)
        channels = model['neck']['out_channels']
        more = dict(type='DyHead', in_channels=channels, out_channels=channels)
        model['neck'] = [model['neck'], dict(more, num_blocks=1)]
        models.append(model)
    cfg = write(*models)
    assert list(cfg.model.distiller.taps) == ['fpn']
    cfg = write(*models, tap='dense', force=True)
    assert list(cfg.model.distiller.taps) == ['cls']
    assert [x.type for x in cfg.model.architecture.neck] == ['FPN', 'DyHead']


def test_different_heads_mimic_the_necks(write):
    cfg = write(faster(8, neck=32), retinanet(4))
    assert cfg.model.type == 'FeatureMimicDistill'
    assert cfg.model.distiller.taps.fpn == dict(
        layer='neck', record='output', normalize=True
    )
    lsh, _ = cfg.model.distiller.losses.fpn
    assert (lsh.feature_dim, lsh.std) == (32, pytest.approx(32**-0.5, 1e-3))
    assert '# LSHLoss: 4 hashes per channel.\n' in cfg.text
    assert cfg.model.distiller.connectors.fpn.out_channels == 32
    assert not cfg.model.inherit  # strides 4 to 64 and 8 to 128


def test_arguments_go_first(write, tmp_path):
    path = str(tmp_path / 'start.pth')
    Path(path).touch()
    cfg = write(
        retinanet(8),
        retinanet(4),
        tap='fpn',
        loss='lsh',
        beta=3.0,
        student_ckpt=path,
    )
    assert cfg.model.distiller.losses.fpn == [
        dict(type='LSHLoss', feature_dim=16, std=0.25, loss_weight=3)
    ]
    start = cfg.model.architecture.init_cfg
    assert start == dict(type='Pretrained', checkpoint=path)


def test_classifiers_mimic_the_pooled_feature(tmp_path):
    out = tmp_path / 'cls.py'
    said = write_config(
        'mmpretrain::resnet/resnet34_8xb32_in1k.py',
        'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py',
        str(out),
    )
    assert 'this closed 12 % (one label, photographs of clothing, ' in said
    cfg = Config.fromfile(out)
    assert cfg.model.distiller.taps == dict(pooled='head.fc')
    # An embedding in the student's own path, into the teacher's classifier.
    assert 'connectors' not in cfg.model.distiller
    assert cfg.model.architecture.neck == dict(
        type='LinearNeck',
        in_channels=1280,
        out_channels=512,
        gap_dim=2,
        norm_cfg=None,
    )
    assert cfg.model.architecture.head.in_channels == 512
    assert cfg.model.inherit
    losses = cfg.model.distiller.losses.pooled
    assert [x.loss_weight for x in losses] == [6, 6]
    assert 'resnet34_8xb32_in1k_20210831' in cfg.model.teacher_ckpt
    assert cfg.data_preprocessor.num_classes == 1000


@pytest.mark.parametrize(
    ('loss', 'expected'),
    [
        ('recommended', [('LSHLoss', 6)]),
        ('lshl2', [('LSHLoss', 1), ('FeatureL2Loss', 1)]),
    ],
)
def test_with_several_labels_the_direction_counts(loss, expected, tmp_path):
    """L2 beside it did not help in the study."""
    head = dict(type='MultiLabelLinearClsHead', num_classes=7, in_channels=512)
    for depth in (18, 34):
        base = f'mmpretrain::resnet/resnet{depth}_8xb32_in1k.py'
        cfg = read_config('student', base)
        cfg.model.head = head
        cfg.dump(tmp_path / f'r{depth}.py')
    out = tmp_path / 'cls.py'
    said = write_config(
        str(tmp_path / 'r34.py'),
        str(tmp_path / 'r18.py'),
        str(out),
        str(tmp_path / 'r34.py'),
        loss=loss,
    )
    assert shares(said) == (['22 %', '49 %'] if loss == 'recommended' else [])
    distiller = Config.fromfile(out).model.distiller
    assert distiller.taps == dict(pooled='head.fc')
    found = [
        (x.type, x.get('loss_weight', 1)) for x in distiller.losses.pooled
    ]
    assert found == expected


def test_the_papers_loss_of_classifiers_is_correct_only(tmp_path):
    out = tmp_path / 'cls.py'
    write_config(
        'mmpretrain::resnet/resnet34_8xb32_in1k.py',
        'mmpretrain::resnet/resnet18_8xb32_in1k.py',
        str(out),
        loss='lshl2',
    )
    cfg = Config.fromfile(out)
    assert cfg.model.distiller.taps.pooled == dict(
        student='head.fc', teacher='head.fc', weights='correct'
    )
    losses = cfg.model.distiller.losses.pooled
    assert [x.loss_weight for x in losses] == [6, 6]
    assert 'neck' not in str(cfg.model.distiller.taps)
    assert cfg.model.architecture.neck.type == 'GlobalAveragePooling'


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(tap='roi'), 'RetinaNet has no class layer that reads RoIs'),
        (
            dict(tap='rio'),
            "tap: must be one of ('roi', 'dense', 'memory', 'fpn'",
        ),
        (dict(loss='kd'), "loss: must be one of ('recommended', "),
        (dict(teacher_ckpt=None), 'teacher_ckpt: is not given, and'),
        (dict(beta=float('nan')), 'loss_weight: must be a finite number'),
        (
            dict(teacher_ckpt='gone.pth'),
            'teacher_ckpt: no such file: gone.pth in the folder in which the '
            'tool was started; train it first',
        ),
        (dict(student_ckpt='/gone.pth'), 'student_ckpt: no such file: /gone.'),
        (dict(tap='roi', loss='cwd'), "roi: CWD compares maps, those of ('fp"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    write, tmp_path, kwargs, message
):
    with pytest.raises(ConfigError) as error:
        write(faster(8), retinanet(4), **kwargs)
    assert message in str(error.value)
    assert '\n' not in str(error.value)
    assert not list(tmp_path.glob('*distilled*'))


def test_the_configs_that_are_read_are_not_overwritten(write, tmp_path):
    write(faster(8), faster(4))
    student = tmp_path / 'student.py'
    before = student.read_text()
    for out, message in (
        (student, 'is the config of the student'),
        (tmp_path / 'distilled', 'must end in .py'),
    ):
        with pytest.raises(ConfigError, match=f'out: .*{message}'):
            write_config(
                str(tmp_path / 'teacher.py'),
                str(student),
                str(out),
                str(tmp_path / 'teacher.pth'),
                force=True,
            )
    assert student.read_text() == before


def test_heads_of_another_kind_are_not_inherited(write, tmp_path):
    """FCOS has group norm in its towers, RetinaNet biases."""
    fcos = shrink('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 8, neck=32)
    fcos.bbox_head.feat_channels = 32
    cfg = write(fcos, retinanet(4, neck=32))
    assert not cfg.model.inherit
    assert 'The heads differ' in (tmp_path / 'distilled.py').read_text()


def test_classes_of_wrapped_and_of_unknown_data_sets(tmp_path):
    def config(dataset):
        return Config(
            dict(train_dataloader=dict(dataset=dataset), default_scope='mmdet')
        )

    voc = dict(type='VOCDataset')
    wrapped = dict(type='ConcatDataset', datasets=[voc, voc])
    mine = dict(type='CocoDataset', metainfo=dict(classes=('a', 'b')))
    assert len(_classes(config(voc))) == 20
    assert _classes(config(wrapped)) == _classes(config(voc))
    assert _classes(config(dict(type='RepeatDataset', dataset=mine))) == [
        'a',
        'b',
    ]
    custom = Config(
        dict(
            train_dataloader=dict(dataset=dict(type='CustomDataset')),
            default_scope='mmpretrain',
        )
    )
    assert _classes(custom) is None
    assert _classes(Config({})) is None


def test_modules_that_either_config_imports_are_imported(write, tmp_path):
    write(faster(8), faster(4))
    path = tmp_path / 'student.py'
    cfg = Config.fromfile(path)
    cfg.custom_imports = dict(imports=['mmpretrain.models'])
    cfg.dump(path)
    out = tmp_path / 'again.py'
    write_config(
        str(tmp_path / 'teacher.py'),
        str(path),
        str(out),
        str(tmp_path / 'teacher.pth'),
    )
    found = Config.fromfile(out).custom_imports.imports
    assert found == ['lshfm_mm', 'mmpretrain.models']


def test_a_config_that_cannot_be_read_is_one_line(tmp_path):
    path = tmp_path / 'copy.py'
    out = str(tmp_path / 'out.py')
    for text, found in (
        ("_base_ = '../_base_/retinanet.py'", 'retinanet.py'),
        ('model = dict(', 'never closed'),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError) as error:
            write_config(str(path), str(path), out, 'teacher.pth')
        message = str(error.value)
        assert message.startswith(f'teacher: {path} cannot be read')
        assert found in message
        assert '\n' not in message


def stride4():
    """A teacher whose neck gives the finest map alone."""
    teacher = faster(8)
    teacher.neck.update(num_outs=1, end_level=0)
    return teacher


def test_models_without_anything_in_common_are_refused(write):
    teacher = stride4()
    teacher.neck.out_channels = [16]
    del teacher.neck
    with pytest.raises(ConfigError) as error:
        write(teacher, retinanet(4))
    assert 'fpn: FasterRCNN has no neck that gives maps' in str(error.value)


def test_necks_without_a_common_stride_meet_on_the_coarser_grid(write, batch):
    resample = dict(type='ResampleConnector')
    distiller = write(stride4(), retinanet(4)).model.distiller
    assert distiller.teacher_connectors == dict(fpn=resample)
    assert 'connectors' not in distiller
    cfg = write(retinanet(4, neck=8), stride4(), force=True)
    assert cfg.model.distiller.connectors.fpn == [
        resample,
        dict(type='ConvConnector', in_channels=16, out_channels=8),
    ]


def test_a_config_is_not_overwritten_unless_forced(write):
    write(faster(8), faster(4))
    with pytest.raises(ConfigError, match='out: .* exists'):
        write(faster(8), faster(4))
    write(faster(8), faster(4), force=True)


def test_the_tool_prints_what_to_do_next(write, tmp_path, monkeypatch, capsys):
    write(faster(8), faster(4))
    arguments = [str(tmp_path / x) for x in ('teacher.py', 'student.py')]
    out, weights = (str(tmp_path / x) for x in ('again.py', 'teacher.pth'))
    monkeypatch.setattr(
        sys,
        'argv',
        ['make_config', *arguments, '-o', out, '--teacher-ckpt', weights],
    )
    tool = str(REPO / 'tools/make_config.py')
    runpy.run_path(tool, run_name='__main__')
    said = capsys.readouterr().out
    assert f'python tools/train.py {out}' in said
    assert 'closed 77 % (FasterRCNN, generated images, ' in said
    assert Config.fromfile(out).model.teacher_ckpt == weights
    sys.argv += ['--tap', 'roi', '--force']  # another recipe than the study's
    runpy.run_path(tool, run_name='__main__')
    assert ' of the gap' not in capsys.readouterr().out


@pytest.mark.parametrize('kind', ['roi', 'dense', 'fpn'])
def test_a_teacher_of_80_classes_distils_into_a_student_of_6(
    write, tmp_path, kind
):
    """Other classes, normalisation and widths: from make_config to mAP."""
    wide = dict(num_classes=80, neck=32, **CAFFE)
    teacher = retinanet(8, **wide) if kind == 'dense' else faster(8, **wide)
    student = faster(4) if kind == 'roi' else retinanet(4)
    if kind != 'roi':
        student.test_cfg.score_thr = 0.0  # untrained scores count, too
    if kind == 'roi':
        teacher.roi_head.bbox_head.fc_out_channels = 40
    torch.manual_seed(0)
    model = MMDET_MODELS.build(teacher)
    model.init_weights()
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'teacher.pth')
    cfg = write(teacher, student)
    assert cfg.model.distiller.connectors
    cfg.train_cfg.max_epochs = 1
    cfg.train_cfg.val_interval = 1
    runner = Runner.from_cfg(cfg)
    runner.train()
    history = runner.message_hub.log_scalars
    mimic = [k for k in history if 'distill.loss' in k]
    assert len(mimic) == 2
    for name in mimic:
        values = history[name].data[0]
        assert len(values) == 6  # iterations
        assert all(0 < x < math.inf for x in values)
    assert 'val/coco/bbox_mAP' in history
    last = (Path(cfg.work_dir) / 'last_checkpoint').read_text().strip()
    export_student(last, str(tmp_path / 'student.pth'))
    plain = init_detector(
        student_config(cfg), str(tmp_path / 'student.pth'), device='cpu'
    )
    trained = runner.model.student.state_dict()
    for key, value in plain.state_dict().items():
        assert torch.equal(value, trained[key])


def test_a_model_whose_train_gives_nothing_to_chain(write):
    """As LAD's, which has a teacher of its own."""
    lad = mmdet_config('lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py').model
    for part in ('', 'teacher_'):
        lad[f'{part}backbone'].update(depth=18, base_channels=4, init_cfg=None)
        lad[f'{part}neck'].update(in_channels=[4, 8, 16, 32], out_channels=32)
        lad[f'{part}bbox_head'].update(
            in_channels=32, feat_channels=32, num_classes=6
        )
    lad.teacher_ckpt = None
    assert write(lad, lad).model.distiller.taps.fpn


def test_a_classifier_of_one_image_size_is_looked_at():
    """An MLP takes no image but of its own size."""
    sizes = dict(embed_dims=16, num_layers=1)
    sizes.update(tokens_mlp_dims=8, channels_mlp_dims=16)
    backbone = dict(type='MlpMixer', arch=sizes, img_size=224, patch_size=32)
    head = dict(type='LinearClsHead', num_classes=3, in_channels=16)
    neck = dict(type='GlobalAveragePooling', dim=1)
    model = dict(backbone=backbone, neck=neck, head=head)
    model.update(type='ImageClassifier', _scope_='mmpretrain')
    assert inspect_config('student', Config(dict(model=model))).pooled
    backbone['img_size'] = 160
    with pytest.raises(ConfigError, match='on a blank image of 224 x 224'):
        inspect_config('student', Config(dict(model=model)))
