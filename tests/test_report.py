"""The page of an analysis: its numbers, and what a browser shows."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from lshfm_mm.cli import parse_names
from lshfm_mm.errors import ConfigError
from lshfm_mm.insight import analyze, charts, polar, write_report
from lshfm_mm.insight.collect import (
    Values,
    build_algorithm,
    knows,
    load_student,
)
from lshfm_mm.insight.curves import read_curves
from lshfm_mm.insight.mimicked import mimicked_layers
from lshfm_mm.insight.report import page
from lshfm_mm.insight.summarize import BINS, _joint, summarize

from .conftest import read_shapes
from .processes import run_tool
from .test_analysis import classifier

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
VOID = ('meta', 'link', 'br', 'img')


@pytest.fixture(scope='module')
def students(make_config, tmp_path_factory):
    """A config file, two checkpoints, and the work folder of one."""
    folder = tmp_path_factory.mktemp('students')
    cfg = make_config('faster_rcnn_lshfm')
    cfg.dump(folder / 'config.py')
    paths = {}
    for seed, name in enumerate(('alone', 'l2 & <lsh>')):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = MODELS.build(cfg.model.architecture)
            model.init_weights()
        state = model.state_dict()
        if seed:  # a training checkpoint
            state = {f'architecture.{k}': v for k, v in state.items()}
        paths[name] = str(folder / f'run{seed}/epoch_1.pth')
        Path(paths[name]).parent.mkdir()
        trained = make_config(
            f'faster_rcnn_{("student", "recommended")[seed]}'
        )
        meta = {'cfg': trained.pretty_text}
        torch.save({'state_dict': state, 'meta': meta}, paths[name])
    log(
        folder / 'run1/1/vis_data',
        [dict(loss=3, epoch=1, iter=x, step=x) for x in (1, 2)]
        + [{'coco/bbox_mAP': 0.1, 'step': 1}],
    )
    return str(folder / 'config.py'), paths


def log(folder, lines):
    folder.mkdir(parents=True)
    text = ''.join(json.dumps(x) + '\n' for x in lines)
    (folder / 'scalars.json').write_text(text)


@pytest.fixture(scope='module')
def analysis(students):
    return analyze(*students, num_images=4, images=2)


def test_all_numbers_are_there_and_are_json(analysis, shapes_root):
    found, images = analysis
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found['task'] == 'detection' and found['images'] == 4
    assert list(found['metrics']) == ['teacher', 'alone', 'l2 & <lsh>']
    for row in found['metrics'].values():
        assert 0 <= row['coco/bbox_mAP'] <= 1
    teacher, alone, other = (
        x['parameters'] for x in found['metrics'].values()
    )
    assert teacher > alone == other > 1e4
    tap = found['taps']['roi']
    assert tap['samples'] == 'boxes'
    for student in tap['students'].values():
        counts = {
            k: student[k]['count'] for k in ('all', 'foreground', 'background')
        }
        assert counts['all'] == counts['foreground'] + counts['background']
        # Boxes that are cut to nothing at the border are left out.
        assert 4 * 100 < counts['all'] <= 4 * found['rois_per_image']
        assert counts['foreground'] == sum(
            x['count'] for x in student['classes'].values()
        )
        for group, count in counts.items():
            joint = student['joint'][group]
            inside = np.sum(joint['counts']) + joint['outside']
            assert inside == count - student[group]['zeros']
    one, two = (x['foreground'] for x in tap['students'].values())
    assert one['count'] == two['count']  # the same boxes
    assert one['angle']['mean'] != two['angle']['mean']
    files = found['files']
    assert set(files) == {
        *('config', 'teacher', 'alone', 'l2 & <lsh>', 'annotations')
    }
    assert all(len(x['sha256']) == 64 for x in files.values())
    assert found['versions']['torch'] == torch.__version__.split('+')[0]
    first = json.loads(
        (shapes_root / 'annotations/val.json').read_text('utf-8')
    )
    boxes = [x['bbox'] for x in first['annotations'] if x['image_id'] == 1]
    truth = found['shown'][0]['truth']
    assert [x['box'][:2] for x in truth] == [x[:2] for x in boxes]
    path = shapes_root / 'val' / found['shown'][0]['name']
    assert np.array_equal(images[0], cv2.imread(str(path)))
    assert found['curves'] == {
        'l2 & <lsh>': {
            'loss': [[1, 3], [2, 3]],
            'task_loss': [[1, 3], [2, 3]],
            'coco/bbox_mAP': [[2, 0.1]],
        }
    }


def test_what_a_student_mimicked_stands_in_its_checkpoint(make_config):
    cfg = make_config('faster_rcnn_recommended')
    layers = ['input of roi_head.bbox_head.shared_fcs.1', 'output of neck']

    def found(text):
        return mimicked_layers({'meta': {'cfg': text}})

    assert found(cfg.pretty_text) == layers
    cfg.model.distiller.active = ['fpn']
    assert found(cfg.pretty_text) == layers[1:]
    assert found(make_config('faster_rcnn_student').pretty_text) == []
    assert found('raise SystemExit\nmodel = dict(type=exit())') == []
    long_form = dict(distiller=dict(student_recorders={}))
    assert found(f'model = {long_form}') is None
    assert found('<class>') is found({}) is None
    assert found('a = 1') is found(None) is mimicked_layers({}) is None


def test_students_that_mimicked_another_layer_are_named(analysis):
    found, images = analysis
    assert found['mimicked']['alone'] == []
    text = page(found, images)
    assert 'alone has mimicked no layer.' in text
    assert (
        'l2 &amp; &lt;lsh&gt; has not mimicked this layer, but input of '
        'roi_head.bbox_head.shared_fcs.1 and output of neck.'
    ) in text
    here = ['input of roi_head.bbox_head.fc_cls']
    other = found | {'mimicked': {'alone': here, 'l2 & <lsh>': None}}
    assert 'mimicked' not in page(other, images)


def test_labels_leave_small_objects_in_sight(analysis):
    """They have none, and outlines are drawn over those of others."""
    found, images = analysis
    shot = found['shown'][0]
    box = [10.0, 20.0, 50.0, 60.0]
    small = [12.0, 12.0, 18.0, 18.0]
    truth = [dict(label='large', box=box), dict(label='small', box=small)]
    shots = [shot | dict(truth=truth, predictions={})]
    shots[0]['predictions'] = {k: [] for k in found['metrics']}
    text = page(found | dict(shown=shots), images[:1])
    assert 'with a score above 0.4' in text
    drawn = text[text.index('aria-label="ground truth') :].split('</svg>')[0]
    assert re.findall(r'<text [^>]*>(.*?)</text>', drawn) == ['large']
    assert re.findall('<title>(.*?)</title>', drawn) == ['large', 'small']
    assert drawn.index('</text>') < drawn.index('<title>')


class Page(HTMLParser):
    """Counts tags, looks whether they are closed, collects addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.addresses = [], [], []
        self.unnamed = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name in ('href', 'src', 'xlink:href'):
            if name in given:
                self.addresses.append(given[name])
        if tag == 'svg' and not (
            given.get('aria-label') or given.get('aria-hidden')
        ):
            self.unnamed.append(given)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_no_other_file(analysis):
    text = page(*analysis)
    read = Page()
    read.feed(text)
    assert not read.open and not read.unnamed
    assert read.tags.count('h1') == 1
    assert not {'script', 'iframe', 'object'} & set(read.tags)
    assert len(read.addresses) > 10
    assert all(x.startswith(('#', 'data:')) for x in read.addresses)
    styles = text[text.index('<style>') : text.index('</style>')]
    assert 'url(' not in styles and '@import' not in styles
    assert 'prefers-color-scheme: dark' in styles
    assert 'l2 &amp; &lt;lsh&gt;' in text and '<lsh>' not in text
    (image, _) = re.findall(r'data:image/png;base64,([^"]+)', text)
    decoded = cv2.imdecode(
        np.frombuffer(base64.b64decode(image), np.uint8), cv2.IMREAD_COLOR
    )
    assert np.array_equal(decoded, analysis[1][0])


def test_files_are_written_whole(analysis, tmp_path, monkeypatch):
    files = write_report(*analysis, tmp_path / 'out')
    assert [x.name for x in files] == [
        *('analysis.json', 'directions.png', 'report.html')
    ]
    assert json.loads(files[0].read_text('utf-8'))['seed'] == 0
    picture = cv2.imread(str(files[1]))
    drawn = [
        (picture[..., ::-1] == rgb(colour)).all(-1).any()
        for colour in charts.SERIES
    ]
    assert drawn == [True, True, False, False, False, False]
    monkeypatch.setattr(polar, 'polar', None)
    with pytest.raises(TypeError):
        write_report(*analysis, tmp_path / 'out2')
    left = [x.name for x in (tmp_path / 'out2').iterdir()]
    assert left == ['analysis.json']


@pytest.fixture(scope='module')
def browser():
    """Start a browser on a page; return its title and what it complained."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f'no browser: none of {", ".join(BROWSERS)} is installed')

    def look(path, *options):
        answer = subprocess.run(
            [
                found,
                *('--headless', '--no-sandbox', '--disable-gpu'),
                *('--no-first-run', '--disable-background-networking'),
                *('--enable-logging=stderr', '--virtual-time-budget=3000'),
                f'--user-data-dir={path.parent / "profile"}',
                *options,
                '--dump-dom',
                path.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        title = re.search(r'<title>(.*?)</title>', answer.stdout)
        complaints = [x for x in answer.stderr.splitlines() if 'CONSOLE' in x]
        return title and title[1], complaints

    return look


# What a reader would see, written into the title; the page has no script.
LOOK = """<script>addEventListener('load', () => {
  document.documentElement.style.width = '400px';
  const doc = document.documentElement;
  const wide = [...document.querySelectorAll('body *')].filter(x =>
    !x.closest('.scroll, pre, svg') && x.getBoundingClientRect().right > 401);
  const hidden = [...document.querySelectorAll('figure > svg')].filter(x =>
    x.getBoundingClientRect().width < 80).length;
  const colour = getComputedStyle(document.body);
  document.title = [WIDTH, wide.length, hidden, colour.color,
    colour.backgroundColor].join('|');
});</script></head>"""


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_browser_shows_it_on_a_phone(analysis, browser, tmp_path, scheme):
    text = page(*analysis)
    plain = tmp_path / 'plain.html'
    plain.write_text(text, 'utf-8')
    options = ['--force-dark-mode'] if scheme == 'dark' else []
    assert browser(plain, *options)[1] == []
    framed = tmp_path / 'framed.html'
    width = 'document.body.scrollWidth'
    framed.write_text(
        text.replace('</head>', LOOK.replace('WIDTH', width)), 'utf-8'
    )
    title, complaints = browser(framed, *options)
    assert complaints == []
    wide, overflowing, hidden, ink, paper = title.split('|')
    assert int(wide) <= 400 and overflowing == hidden == '0'
    brightness = [sum(map(int, re.findall(r'\d+', x))) for x in (ink, paper)]
    assert (brightness[0] > brightness[1]) == (scheme == 'dark')


def rgb(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def contrast(a, b):
    """Contrast of two colours (WCAG 2)."""

    def luminance(colour):
        parts = np.array(colour) / 255
        linear = np.where(
            parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4
        )
        return np.dot(linear, (0.2126, 0.7152, 0.0722))

    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


def filtered(colour):
    """A colour after ``invert(.9) hue-rotate(180deg)`` (CSS filter effects).

    Half a turn of the hue mirrors a colour at the grey of its luminance.
    """
    inverted = 0.9 * 255 - 0.8 * np.array(colour)
    grey = np.dot(inverted, (0.213, 0.715, 0.072))
    return (2 * grey - inverted).clip(0, 255)


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_colours_can_be_read(theme, analysis):
    text = page(*analysis)
    style = text[text.index('<style>') : text.index('* { box-sizing')]
    rule = '.charts svg { filter: invert(.9) hue-rotate(180deg); }'
    light, dark = style.split('@media (prefers-color-scheme: dark)')
    assert rule in dark and 'filter' not in light
    part, shown = (light, np.array) if theme == 'light' else (dark, filtered)
    css = {
        name: rgb(colour)
        for name, colour in re.findall(r'--(\w+): (#\w{6});', part)
    }
    for ground in (css['paper'], css['card']):
        assert contrast(css['ink'], ground) > 7
        assert contrast(css['muted'], ground) > 4.5
    card = css['card']
    assert contrast(shown(rgb(charts.INK)), card) > 7
    assert contrast(shown(rgb(charts.MUTED)), card) > 4.5
    assert contrast(shown(rgb(charts.GRID)), card) > 1.2
    for colour in charts.SERIES:
        assert contrast(shown(rgb(colour)), card) > 4


def test_regions_hold_their_share():
    generator = np.random.default_rng(0)
    density = generator.random((20, 30))
    for share, level in zip(
        (0.5, 0.9), polar.region_levels(density, (0.5, 0.9)), strict=True
    ):
        inside = density[density >= level].sum() / density.sum()
        assert share <= inside < share + 0.01
    assert polar.region_levels(np.zeros((2, 2)), (0.5,)) == []
    spot = np.zeros((21, 21))
    spot[10, 10] = 7
    smooth = polar.smoothed(spot)
    assert smooth.sum() == pytest.approx(7)
    assert np.allclose(smooth, smooth.T)
    variance = (smooth.sum(axis=0) / 7) @ (np.arange(21) - 10) ** 2
    assert variance == pytest.approx(2, rel=0.02)


def test_samples_lie_in_the_regions_that_are_drawn():
    number = 4000
    generator = np.random.default_rng(0)
    angle = generator.normal(50, 12, number)
    ratio = 3 * 2 ** generator.normal(0, 0.6, number)
    one = np.ones(number)
    labels = np.zeros((number, 1), np.int16)
    values = Values(angle, ratio, one, one, labels)
    student = {
        'all': summarize(values),
        'joint': {'all': _joint(values, one > 0)},
    }
    axes = Figure().add_subplot(projection='polar')
    polar.polar(axes, {'students': {'one': student}, 'bins': BINS}, 'one')
    assert axes.get_thetamax() == 90 and axes.get_rmin() == 0
    assert 2.8 < axes.get_rmax() < 3.5  # log2(1 + ratio)
    points = np.stack([np.deg2rad(angle), np.log2(1 + ratio)], axis=1)
    shares = [
        region.get_paths()[0].contains_points(points).mean()
        for region in axes.collections
    ]
    assert np.allclose(shares, [0.9, 0.7, 0.5, 0.25], atol=0.04)
    place = [x.item() for x in axes.lines[-1].get_data()]
    assert place == pytest.approx([np.deg2rad(50), 2], rel=0.02)
    assert axes.get_title() == 'one: 50°, norm × 2.99'


def test_curves_of_a_resumed_training(tmp_path):
    """What was done again counts once; metrics stand where they were."""

    def lines(steps, loss):
        return [
            {
                'loss': loss,
                'distill.loss_roi_lsh': 1.0,
                'roi.angle': 40.0,
                'lr': 0.1,
                'epoch': 1,
                'iter': x,
                'step': x,
            }
            for x in steps
        ]

    log(
        tmp_path / '20260101_000000/vis_data',
        [*lines((10, 20, 30), 5.0), {'coco/bbox_mAP': 0.1, 'step': 1}],
    )
    log(
        tmp_path / '20260102_000000/vis_data',
        [
            *lines((20,), 4.0),
            {'coco/bbox_mAP': 0.2, 'step': 1},
            *lines((30,), float('nan')),
        ],
    )
    found = read_curves(tmp_path)
    assert found['loss'] == [[10, 5.0], [20, 4.0]]
    assert found['task_loss'] == [[10, 4.0], [20, 3.0]]
    assert found['mimic_loss'] == [[10, 1.0], [20, 1.0], [30, 1.0]]
    assert found['coco/bbox_mAP'] == [[20, 0.2]]
    assert found['roi.angle'] == [[10, 40]]  # as long as it stays
    assert 'lr' not in found


def test_a_page_of_classifiers(shapes_root, tmp_path):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        cfg = classifier('multi', shapes_root, tmp_path)
        cfg.dump(tmp_path / 'config.py')
        model = build_algorithm(cfg).student
        torch.save({'state_dict': model.state_dict()}, tmp_path / 's.pth')
        plain = str(tmp_path / 'plain.pth')
        alone = read_shapes('multi_student').model
        alone.backbone.pop('init_cfg', None)
        alone['_scope_'] = 'mmpretrain'
        torch.save({'state_dict': MODELS.build(alone).state_dict()}, plain)
        found, images = analyze(
            str(tmp_path / 'config.py'),
            {'one': str(tmp_path / 's.pth'), 'alone': plain},
            images=['000002.png'],
        )
        with pytest.raises(ConfigError, match='none of .* has the embedding'):
            analyze(str(tmp_path / 'config.py'), {'alone': plain}, images=0)
    # Without the embedding it is evaluated, and its features are not.
    assert list(found['taps']['pooled']['students']) == ['one']
    assert found['metrics']['alone']['multi-label/mAP'] > 0
    sizes = [x['parameters'] for x in found['metrics'].values()]
    assert sizes[0] > sizes[1] > sizes[2]
    assert len(found['shown'][0]['predictions']['alone']) == 3
    assert 'alone is not compared at all: it has no' in page(found, images)
    assert found['task'] == 'classification' and found['images'] == 6
    tap = found['taps']['pooled']
    assert tap['samples'] == 'images'
    assert set(tap['students']['one']) == {'all', 'classes', 'joint'}
    assert found['metrics']['one']['multi-label/mAP'] > 0
    info = json.loads(
        (shapes_root / 'annotations/val.json').read_text('utf-8')
    )
    (shown,) = found['shown']
    (number,) = [
        x['id'] for x in info['images'] if x['file_name'] == shown['name']
    ]
    names = {x['id']: x['name'] for x in info['categories']}
    expected = {
        names[x['category_id']]
        for x in info['annotations']
        if x['image_id'] == number
    }
    assert {x['label'] for x in shown['truth']} == expected
    scores = [x['score'] for x in shown['predictions']['one']]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    text = page(found, images)
    assert '<h2>Predictions</h2>' in text
    assert (
        f'ground truth: {", ".join(x["label"] for x in shown["truth"])}'
        in (text)
    )


def test_a_teacher_of_other_classes_is_not_evaluated(
    make_config, students, teacher_config, tmp_path
):
    cfg = make_config('faster_rcnn_lshfm')
    teacher = Config.fromfile(teacher_config).model
    assert knows(MODELS.build(teacher), 6)
    teacher.roi_head.bbox_head.num_classes = 9
    model = MODELS.build(teacher)
    assert not knows(model, 6)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'teacher.pth')
    cfg.model.teacher = teacher
    cfg.model.teacher_ckpt = str(tmp_path / 'teacher.pth')
    cfg.dump(tmp_path / 'config.py')
    found, images = analyze(
        str(tmp_path / 'config.py'),
        {'one': students[1]['alone']},
        num_images=1,
        images=1,
    )
    assert set(found['metrics']['teacher']) == {'parameters'}
    assert 'coco/bbox_mAP' in found['metrics']['one']
    assert list(found['shown'][0]['predictions']) == ['one']
    text = page(found, images)
    assert 'The classes of the teacher are others than those of the' in text
    assert '<th scope="col">bbox_mAP</th>' in text


def test_a_teacher_without_a_head_is_compared_all_the_same(
    shapes_root, tmp_path
):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        cfg = classifier('single', shapes_root, tmp_path)
        state = torch.load(tmp_path / 't.pth', weights_only=True)
        headless = {
            k: v for k, v in state['state_dict'].items() if 'head.' not in k
        }
        torch.save({'state_dict': headless}, tmp_path / 't.pth')
        cfg.model.teacher.head = None
        neck = dict(student='neck', teacher='neck')
        cfg.model.distiller.taps.pooled.update(neck, record='output')
        width = state['state_dict']['head.fc.weight'].shape[1]
        for loss in cfg.model.distiller.losses.pooled:
            if loss.type == 'LSHLoss':
                loss.update(feature_dim=width, std=0.1)
        cfg.dump(tmp_path / 'config.py')
        student = build_algorithm(cfg).student
        torch.save({'state_dict': student.state_dict()}, tmp_path / 's.pth')
        found, _ = analyze(
            str(tmp_path / 'config.py'), {'one': str(tmp_path / 's.pth')}
        )
    assert set(found['metrics']['teacher']) == {'parameters'}
    assert 'accuracy/top1' in found['metrics']['one']
    assert list(found['taps']['pooled']['students']) == ['one']


def test_without_its_connector_a_student_is_left_out(
    make_config, students, tmp_path
):
    cfg = make_config('faster_rcnn_lshfm')
    linear = dict(in_features=256, out_features=256)
    cfg.model.distiller.connectors = dict(
        roi=dict(
            type='TorchNNConnector', module_name='Linear', module_args=linear
        )
    )
    only_roi = build_algorithm(cfg)
    cfg.model.distiller.taps.fpn = dict(layer='neck', record='output')
    cfg.model.distiller.losses.fpn = [dict(type='PKDLoss', loss_weight=6)]
    algorithm = build_algorithm(cfg)
    torch.save({'state_dict': algorithm.state_dict()}, tmp_path / 'with.pth')
    again = build_algorithm(cfg)
    assert load_student(again, str(tmp_path / 'with.pth')) == []
    for key, value in algorithm.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    plain = next(iter(students[1].values()))
    assert load_student(again, plain) == ['roi']
    cfg.dump(tmp_path / 'config.py')
    config = str(tmp_path / 'config.py')
    found, images = analyze(config, {'one': plain}, num_images=1, images=0)
    assert list(found['taps']) == ['fpn']
    assert 'one is not compared at roi' in page(found, images)
    with pytest.raises(ConfigError, match='none of the connectors of .*roi'):
        load_student(only_roi, plain)


@pytest.mark.slow
def test_the_tool_writes_all(students, tmp_path):
    config, paths = students
    said = run_tool(
        *('tools/analyze.py', config, f'one={paths["alone"]}'),
        *('--out', tmp_path / 'out', '--num-images', 2, '--images'),
        *('000001.png',),
    )
    found = json.loads((tmp_path / 'out/analysis.json').read_text('utf-8'))
    assert found['images'] == 2 and found['students'] == ['one']
    for name in ('analysis.json', 'directions.png', 'report.html'):
        assert (tmp_path / 'out' / name).stat().st_size > 10_000
        assert said.count(str(tmp_path / 'out' / name)) == 1
    said = run_tool(
        *('tools/analyze.py', config, 'x', '--out', tmp_path), code=1
    )
    assert said.count('\n') == 1 and said.startswith('error: students: ')


def test_wrong_arguments_are_one_line(students):
    config, paths = students
    for arguments, message in (
        (['x'], "students: 'x' is no NAME=VALUE"),
        (['a=b', 'a=c'], "students: 'a=c' is given twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_names('students', arguments)
    for arguments, message in (
        (dict(students={'teacher': 'x.pth'}), 'teacher=x.pth: the teacher is'),
        (dict(students={'a': 'gone.pth'}), 'no such file: gone.pth'),
        (dict(images=['gone.jpg']), 'images: gone.jpg is none of the 6'),
        (dict(work_dirs={'who': '.'}), "work-dirs: 'who' is no student"),
        (dict(work_dirs={'alone': '.'}), 'of alone has no '),
        (dict(num_images=0), 'num-images: must be an int >= 1, but got 0'),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            analyze(config, **{'students': paths, **arguments})
        assert '\n' not in str(error.value)
