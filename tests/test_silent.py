"""What would silently be something else: each is right, said or refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from mmrazor.registry import MODELS

from lshfm_mm.cli import training
from lshfm_mm.distillers import level_pairs
from lshfm_mm.distillers.connected import ConnectedFeatures
from lshfm_mm.distillers.level_losses import loss_over_levels
from lshfm_mm.distillers.level_pairs import Level, LevelPairs
from lshfm_mm.distillers.records import Records
from lshfm_mm.distillers.taps import Tap, takes_weights
from lshfm_mm.errors import ConfigError
from lshfm_mm.export.student import student_config
from lshfm_mm.insight.curves import read_curves
from lshfm_mm.losses import LSHLoss
from lshfm_mm.losses.l2 import FeatureL2Loss, RelativeL2Loss
from lshfm_mm.training.audit import Audit

from .conftest import mmdet_config
from .test_connectors import yolov3
from .test_detectors import distil, losses_of, retinanet
from .test_resuming import Arguments
from .test_training import epochs, train

WIDE, HIGH = (64, 128), (128, 64)  # of two images, height first


def rtmdet(shares=False):
    """RTMDet's head, whose class layers are of a level each."""
    model = mmdet_config('rtmdet/rtmdet_tiny_8xb32-300e_coco.py').model
    model.backbone.update(widen_factor=0.0625, init_cfg=None)
    model.neck.update(in_channels=[16, 32, 64], out_channels=16)
    model.bbox_head.update(
        in_channels=16, feat_channels=16, num_classes=6, share_conv=shares
    )
    return model


def two_images():
    """A raw batch of two shapes, with an object each."""
    samples = []
    for shape in (WIDE, HIGH):
        boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
        instances = InstanceData(bboxes=boxes, labels=torch.tensor([1]))
        sample = DetDataSample(gt_instances=instances)
        sample.set_metainfo(
            dict(img_shape=shape, scale_factor=(1, 1), batch_input_shape=None)
        )
        samples.append(sample)
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randint(256, (3, *x), generator=generator, dtype=torch.uint8)
        for x in (WIDE, HIGH)
    ]
    return dict(inputs=inputs, data_samples=samples)


def weights_at(model, batch):
    """Weights of the samples that the losses of a batch saw, by tap."""
    seen = {}
    model.distiller.observers.append(lambda _, found: seen.update(found))
    losses_of(model, batch)
    return {name: tap.weights for name, tap in seen.items()}


@pytest.mark.parametrize('layer', ['rtm_cls.{}', 'cls_convs.{}.1.conv'])
def test_a_class_layer_of_one_level_has_the_mask_of_that_level(layer):
    taps = {f'level{i}': f'bbox_head.{layer.format(i)}' for i in range(3)}
    losses = {name: [dict(type='FeatureL2Loss')] for name in taps}
    model = distil(rtmdet(), rtmdet(), taps, losses)
    for index, (found,) in enumerate(weights_at(model, two_images()).values()):
        # Nothing is trained outside the image: 128 / stride locations a side.
        side = 16 >> index
        expected = torch.zeros(2, side, side, dtype=torch.bool)
        expected[0, : side // 2] = expected[1, :, : side // 2] = True
        assert torch.equal(found > 0, expected), index


def test_a_tower_that_levels_share_has_their_masks_in_turn():
    tap = dict(tower='bbox_head.cls_convs.0.1.conv')
    losses = dict(tower=[dict(type='FeatureL2Loss')])
    model = distil(rtmdet(shares=True), rtmdet(shares=True), tap, losses)
    found = weights_at(model, two_images())['tower']
    assert [int((x > 0).sum()) for x in found] == [256, 64, 16]


def test_yolov3_goes_from_coarse_to_fine():
    """Its class loss counts locations with an object, of three anchors."""
    taps = {f'level{i}': f'bbox_head.convs_pred.{i}' for i in range(3)}
    losses = {name: [dict(type='FeatureL2Loss')] for name in taps}
    models = [yolov3(4), yolov3(4)]
    for model in models:
        model.backbone = dict(type='ResNet', depth=18, base_channels=4)
        model.backbone['out_indices'] = (1, 2, 3)
        model.neck.in_channels = [32, 16, 8]
    model = distil(*models, taps, losses)
    given = []
    model.student.bbox_head.loss_cls.register_forward_hook(
        lambda _, args, kwargs, out: given.append(kwargs['weight']),
        with_kwargs=True,
    )
    found = [x for (x,) in weights_at(model, two_images()).values()]
    assert [x.shape for x in found] == [(2, 4, 4), (2, 8, 8), (2, 16, 16)]
    expected = [x.view(2, -1, 3).any(dim=2) for x in given]
    assert any(x.any() for x in expected)
    for weights, mask in zip(found, expected, strict=True):
        assert torch.equal(weights.flatten(1) > 0, mask)


def test_settings_beside_the_student_are_refused(make_config):
    """Those of its test would be lost where the student takes its place."""
    cfg = make_config('faster_rcnn_lshfm')
    place = 'test_cfg.rcnn.score_thr'
    given = make_config(
        'faster_rcnn_lshfm', {f'model.architecture.{place}': 0.5}
    )
    assert student_config(given).model.test_cfg.rcnn.score_thr == 0.5
    for key in (place, 'backbone.frozen_stages', 'train_cfg.augments'):
        wrong = make_config('faster_rcnn_lshfm', {f'model.{key}': 0.5})
        message = (
            r"model: RoIMimicDistill takes no '(\w+)'; the student has one, "
            r'model.architecture.\1$'
        )
        with pytest.raises(ConfigError, match=message):
            student_config(wrong)
        with pytest.raises(ConfigError, match=message):
            MODELS.build(wrong.model)
    assert student_config(cfg).model == cfg.model.architecture | {
        '_scope_': 'mmdet'
    }


def test_what_has_stopped_is_not_logged_on(make_config):
    cfg = make_config('faster_rcnn_recommended', epochs(2))
    cfg.visualizer.name = cfg.work_dir  # one of its own
    cfg.custom_hooks = [
        dict(type='mmrazor.StopDistillHook', stop_epoch=1),
        dict(type='AlignmentHook', interval=1),
    ]
    runner = train(cfg)
    (file,) = Path(cfg.work_dir).glob('*/vis_data/scalars.json')
    lines = [json.loads(x) for x in file.read_text().splitlines()]
    ends = {}
    for line in lines:
        ends.update(dict.fromkeys(line, line['step']))
    assert ends['loss'] == 12
    assert {v for k, v in ends.items() if '.' in k and k[0] != 's'} == {6}
    curves = read_curves(Path(cfg.work_dir))
    assert curves['mimic_loss'][-1][0] == 6
    assert curves['task_loss'][-1] == curves['loss'][-1]
    # What a checkpoint of the first epoch brings along goes, too.
    hub = MessageHub.get_current_instance()
    hub.update_scalar('train/distill.loss_roi_lsh', 1.0)
    distiller = runner.model.distiller
    distiller.leave_nothing()
    assert 'train/distill.loss_roi_lsh' not in hub.log_scalars
    assert 'train/loss' in hub.log_scalars


def test_the_audit_does_not_wait_for_what_has_stopped(batch):
    model = distil(
        retinanet(4),
        retinanet(8),
        dict(cls='bbox_head.retina_cls'),
        dict(cls=[dict(type='FeatureL2Loss')]),
    )
    model.distillation_stopped = True
    audit = Audit(model)
    layer = model.student.bbox_head.retina_cls
    hooks = []
    layer.register_forward_hook(
        lambda *_: hooks.append(len(layer._forward_pre_hooks))
    )
    before = len(layer._forward_pre_hooks)
    losses_of(model, batch)
    assert {*hooks} == {before} and audit.waiting is None
    model.distillation_stopped = False
    losses_of(model, batch)
    assert max(hooks) > before and not audit.is_open


def test_the_memory_format_of_the_student_is_its_own(batch):
    """What the teacher's operators see is NCHW, also if the images are not."""
    model = distil(
        retinanet(4),
        retinanet(8),
        dict(cls='bbox_head.retina_cls'),
        dict(cls=[dict(type='FeatureL2Loss')]),
    )
    seen = []
    model.teacher.neck.register_forward_hook(lambda *x: seen.append(x[1][0]))
    data = model.data_preprocessor(batch, True)
    inputs, samples = data['inputs'], data['data_samples']
    model.record_teacher(inputs, samples)
    last = torch.channels_last
    model.to(memory_format=last)
    model.record_teacher(inputs.contiguous(memory_format=last), samples)
    assert all(x.is_contiguous() for given in seen for x in given)
    for before, after in zip(seen[0], seen[-1], strict=True):
        assert torch.equal(before, after)


SAME = 'have the same stride in both models'


def maps(*sides, images=1):
    return [torch.zeros(images, 2, x, x) for x in sides]


def pairs_of(*batches):
    """What a tap pairs in batches: the student's maps and the teacher's."""
    records = Records({'fpn': Tap('neck', 'neck', 'output')}, None, None)
    pairs = LevelPairs(records, ConnectedFeatures(records, {}, {}))
    found = []
    for batch in batches:
        found.append(pairs._pair('fpn', *batch))
        pairs._check_pairs('fpn', *batch, found[-1], SAME)
    return found


def test_levels_of_one_size_are_paired_by_their_place():
    (found,) = pairs_of((maps(8, 4, 2, 1, 1), maps(4, 2, 1, 1)))
    assert found == [(1, 0), (2, 1), (3, 2), (4, 3)]
    (found,) = pairs_of((maps(8, 4, 2, 1, 1), maps(8, 4, 2, 1)))
    assert found == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_levels_that_nothing_tells_apart_are_refused():
    """Strides 64 and 128 of the student, and of the teacher 128 alone."""
    message = (
        r'taps.fpn: which levels belong together cannot be told, several have '
        r'one size; student \[\(1, 2, 2, 2\), \(1, 2, 1, 1\), \(1, 2, 1, 1\)'
        r'\], teacher \[\(1, 2, 1, 1\)\]; train on larger images'
    )
    with pytest.raises(ConfigError, match=message):
        pairs_of((maps(2, 1, 1), maps(1)))


def test_a_larger_batch_tells_levels_apart_for_all_that_follow():
    large = maps(8, 4, 2), maps(2)
    first, small, other = pairs_of(
        large, (maps(2, 1, 1), maps(1)), (maps(4, 2, 1), maps(4, 2, 1))
    )
    assert first == small == [(2, 0)]
    assert other == [(0, 0), (1, 1), (2, 2)]
    # A stride that the teacher leaves out.
    found = pairs_of((maps(8, 4, 2), maps(8, 2)), (maps(2, 1, 1), maps(2, 1)))
    assert found == [[(0, 0), (2, 1)]] * 2


def test_levels_that_are_lost_are_named_once(monkeypatch):
    said = []
    monkeypatch.setattr(
        level_pairs, 'print_log', lambda *x, **kw: said.append((x[0], kw))
    )
    batch = maps(16, 8, 4, 2, 1), maps(32, 16)
    pairs_of(batch, batch)
    warning = (
        'taps.fpn: 1 levels have the same stride in both models; without a '
        'partner, and not mimicked: level 1 of the student, (8, 8); level 2 '
        'of the student, (4, 4); level 3 of the student, (2, 2); level 4 of '
        'the student, (1, 1); level 0 of the teacher, (32, 32)'
    )
    assert said == [(warning, dict(level=30))]


class Twice(RelativeL2Loss):
    def forward(self, s_feature, t_feature, sample_weight=None):
        return 2 * super().forward(s_feature, t_feature, sample_weight)


class TwiceOfAll(LSHLoss):
    def forward(self, *args, **kwargs):
        return 2 * super().forward(*args, **kwargs)


class Renamed(RelativeL2Loss):
    def __init__(self, factor=3.0):
        super().__init__(loss_weight=factor)


def levels_of(*sides):
    """Features at levels that are one set of samples, and weights."""
    generator = torch.Generator().manual_seed(0)
    features = [
        torch.randn(2, 2, 3, x, x, generator=generator) * x for x in sides
    ]
    weights = [torch.rand(2, x, x, generator=generator) / 9 for x in sides]
    return [Level(*x, i, i) for i, x in enumerate(features)], weights


def test_a_subclass_of_a_loss_is_called_on_dense_taps():
    levels, weights = levels_of(2, 4)
    loss = Twice(loss_weight=3)
    found = loss_over_levels(loss, levels, weights, one_set=True)
    expected = sum(
        2
        * 3
        * ((x.student - x.teacher) ** 2).mean(1).mul(w).sum()
        / ((x.teacher**2).mean(1).mul(w).sum() / w.sum())
        for x, w in zip(levels, weights, strict=True)
    )
    assert torch.allclose(found, expected, rtol=1e-4)
    one = loss_over_levels(RelativeL2Loss(3), levels, weights, one_set=True)
    assert not torch.allclose(found, 2 * one, rtol=0.01)


def test_a_subclass_that_only_sets_arguments_is_its_loss():
    levels, weights = levels_of(2, 4)
    found, expected = (
        loss_over_levels(x, levels, weights, one_set=True)
        for x in (Renamed(), RelativeL2Loss(3))
    )
    assert torch.equal(found, expected)


def test_a_subclass_that_passes_its_arguments_on_weighs_samples():
    levels, weights = levels_of(2, 4)
    losses = [x(3, 7, 1.0) for x in (TwiceOfAll, LSHLoss)]
    twice, once = (
        loss_over_levels(x, levels, weights, one_set=True) for x in losses
    )
    assert torch.allclose(twice, 2 * once)
    equal = loss_over_levels(losses[0], levels, None, one_set=True)
    assert not torch.allclose(twice, equal, rtol=0.01)
    assert takes_weights(FeatureL2Loss)
    assert not takes_weights(MODELS.get('L2Loss'))


def prepare(folder, config, resume=None, trains=True):
    """What tools/train.py does before a training."""
    args = Arguments(folder, resume)
    args.config = str(config)
    training.prepare_training(args, Config(), trains)
    return args.resume


def test_two_configs_of_one_name_do_not_share_a_folder(
    make_config, tmp_path, capsys
):
    """MMEngine names the work folder by the file alone."""
    paths = [tmp_path / x / 'r18.py' for x in ('coco', 'voc')]
    for path in paths:
        path.parent.mkdir()
        path.touch()
    folder = tmp_path / 'work_dirs/r18'
    prepare(folder, paths[0])
    train(make_config('faster_rcnn_student', epochs(1) | {'work_dir': folder}))
    checkpoint = str(folder / 'epoch_1.pth')
    assert prepare(folder, paths[0], 'auto') == checkpoint
    assert 'holds the run' not in capsys.readouterr().err
    line = (
        f'work_dir: {folder} holds the run of {paths[0]}, not of {paths[1]}; '
        f'give another --work-dir'
    )
    with pytest.raises(ConfigError) as error:
        prepare(folder, paths[1], 'auto')
    assert str(error.value) == f'{line}, or name the checkpoint to --resume'
    # By its name it is wanted; and then the folder is another's.
    assert prepare(folder, paths[1], checkpoint) == checkpoint
    assert capsys.readouterr().err == f'warning: {line}\n'
    with pytest.raises(ConfigError, match='holds the run of .*voc/r18.py'):
        prepare(folder, paths[0], 'auto')


def test_a_config_that_was_moved_keeps_its_folder(tmp_path, capsys):
    folder = tmp_path / 'work'
    old, new = tmp_path / 'old.py', tmp_path / 'new.py'
    old.touch()
    new.touch()
    prepare(folder, old)
    prepare(folder, new)  # nothing has been trained there
    (folder / 'last_checkpoint').touch()
    prepare(folder, old, trains=False)
    assert capsys.readouterr().err == ''
    prepare(folder, old)
    assert capsys.readouterr().err.startswith(f'warning: work_dir: {folder}')
    shutil.move(old, new)
    prepare(folder, new)
    assert capsys.readouterr().err == ''
