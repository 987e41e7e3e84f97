"""Several processes give what one gives, and none waits for another."""

import json
import math
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS as CLS_MODELS
from torch import is_tensor
from torch.utils._pytree import tree_map

from .conftest import read_shapes
from .processes import METHOD, run_each
from .two_processes import main, train

scope = DefaultScope.overwrite_default_scope
REPO = Path(__file__).parent.parent
TIMEOUT = 240  # seconds; a hang ends there
LINEAR = dict(
    roi=dict(
        type='TorchNNConnector',
        module_name='Linear',
        module_args=dict(in_features=256, out_features=256),
    )
)
CONNECTOR = {'model.distiller.connectors': LINEAR}
LSH = 'distiller.distill_losses.loss_'
# Nothing is drawn and nothing is left out, so that each image gives the same
# number of RoIs and each mean of mmdet is over equal numbers.
ALL = {
    'rpn.sampler.num': 10**6,
    'rpn.sampler.pos_fraction': 1.0,
    'rpn.assigner.pos_iou_thr': 0.5,
    'rpn.assigner.neg_iou_thr': 0.5,
    'rpn_proposal.nms_pre': 10**6,
    'rpn_proposal.max_per_img': 10**6,
    'rpn_proposal.min_bbox_size': -1,
    'rpn_proposal.nms.iou_threshold': 2.0,
    'rcnn.sampler.num': 10**6,
    'rcnn.sampler.pos_fraction': 1.0,
    'rcnn.sampler.add_gt_as_proposals': False,
}


@pytest.fixture(scope='module')
def twins(shapes_root, tmp_path_factory):
    """Annotations in which the images 2k and 2k + 1 have the same boxes.

    Two processes see the even and the odd images: other pixels, but equal
    numbers of positive anchors.
    """
    content = json.loads((shapes_root / 'annotations/train.json').read_text())
    images = content['images']
    boxes = {image['id']: [] for image in images}
    for item in content['annotations']:
        boxes[item['image_id']].append(item)
    content['annotations'] = [
        {**item, 'image_id': image['id'], 'id': 1000 * index + number}
        for index, image in enumerate(images)
        for number, item in enumerate(boxes[images[index - index % 2]['id']])
    ]
    path = tmp_path_factory.mktemp('twins') / 'train.json'
    path.write_text(json.dumps(content))
    return str(path)


def once(iterations, batch_size):
    """Overrides: few iterations, plain SGD, and no draw of images."""
    return {
        'train_cfg': dict(
            _delete_=True,
            type='IterBasedTrainLoop',
            max_iters=iterations,
            val_interval=10**6,
        ),
        'train_dataloader.batch_size': batch_size,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'train_dataloader.sampler.shuffle': False,
        'val_dataloader': None,
        'val_cfg': None,
        'val_evaluator': None,
        'optim_wrapper': dict(
            _delete_=True,
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.01, weight_decay=0.0001),
        ),
        'param_scheduler': None,
        'default_hooks.checkpoint': None,
    }


@pytest.fixture(scope='module')
def make(make_config, twins):
    """Make the config of a distillation of detectors."""

    def shrink(name, iterations, batch_size, **overrides):
        cfg = make_config(
            name,
            {
                **once(iterations, batch_size),
                'train_dataloader.dataset.ann_file': twins,
                'train_dataloader.dataset.pipeline.3.prob': 0.0,
                'model.architecture.backbone.norm_eval': True,
                **overrides,
            },
        )
        cfg.experiment_name = Path(cfg.work_dir).name
        return cfg

    return shrink


def roi(make, iterations, batch_size, **overrides):
    return make(
        'faster_rcnn_lshfm',
        iterations,
        batch_size,
        **{
            'model.distiller.losses.roi': [
                dict(type='LSHLoss', loss_weight=7),
                dict(type='FeatureL2Loss', loss_weight=7),
            ],
            **CONNECTOR,
            'model.architecture.rpn_head.anchor_generator.ratios': [1.0],
            **{f'model.architecture.train_cfg.{k}': v for k, v in ALL.items()},
            **overrides,
        },
    )


def dense(make, teacher, iterations, batch_size):
    return make(
        'retinanet_lshfm',
        iterations,
        batch_size,
        **{
            'model.teacher.cfg_path': str(teacher),
            'model.teacher_ckpt': str(teacher.with_suffix('.pth')),
        },
    )


def several(make, teacher, iterations, batch_size):
    """A second teacher, for the neck."""
    cfg = roi(make, iterations, batch_size)
    model, fc_cls = cfg.model, 'roi_head.bbox_head.fc_cls'
    model.teachers = dict(
        a=dict(model=model.pop('teacher'), ckpt=model.pop('teacher_ckpt')),
        b=dict(model=str(teacher), ckpt=str(teacher.with_suffix('.pth'))),
    )
    model.distiller.taps = dict(
        roi=dict(student=fc_cls, teacher=f'a:{fc_cls}'),
        fpn=dict(student='neck', teacher='b:neck', record='output'),
    )
    model.distiller.losses = dict(
        roi=[dict(type='LSHLoss')], fpn=[dict(type='FeatureL2Loss')]
    )
    return cfg


@pytest.fixture(scope='module')
def classifier(shapes_root, tmp_path_factory):
    """Make a config of a classifier whose bias is a median."""
    folder = tmp_path_factory.mktemp('classifier')
    teacher = read_shapes('single_teacher')
    teacher.dump(folder / 'teacher.py')
    with torch.random.fork_rng(), scope('mmpretrain'):
        torch.manual_seed(7)
        model = CLS_MODELS.build(teacher.model)
        model.init_weights()
        torch.nn.init.normal_(model.head.fc.weight, std=0.1)
    torch.save({'state_dict': model.state_dict()}, folder / 'teacher.pth')

    def make(batch_size):
        cfg = read_shapes('single_lshfm')
        cfg.merge_from_dict(
            {
                **once(1, batch_size),
                'load_from': None,
                'train_dataloader.dataset.data_root': str(shapes_root),
                'train_dataloader.dataset.pipeline.1.prob': 0.0,
                'model.architecture.backbone.norm_eval': True,
                'model.teacher.cfg_path': str(folder / 'teacher.py'),
                'model.teacher_ckpt': str(folder / 'teacher.pth'),
                # Images that the teacher gets right are not equally many.
                'model.distiller.taps.lsh.weights': 'uniform',
                'model.distiller.taps.l2.weights': 'uniform',
                'work_dir': str(folder / 'work'),
            }
        )
        cfg.experiment_name = f'classifier_{batch_size}'
        return cfg

    return make


@pytest.fixture(scope='module')
def empty_images(twins, tmp_path_factory):
    """The images without their annotations."""
    content = json.loads(Path(twins).read_text())
    content['annotations'] = []
    path = tmp_path_factory.mktemp('empty') / 'train.json'
    path.write_text(json.dumps(content))
    return str(path)


def empty_rank(cfg, images):
    """Let the second process have images without objects, and no RoI."""
    cfg.of_rank_1 = {
        'model.architecture.train_cfg.rpn_proposal.min_bbox_size': 10**6,
        'train_dataloader.dataset.ann_file': images,
        'train_dataloader.dataset.filter_cfg.filter_empty_gt': False,
    }
    return cfg


def cascade(cfg):
    """Make the student one of two stages; its stages have connectors."""
    head = cfg.model.architecture.roi_head
    stages = 2
    head.update(
        type='CascadeRoIHead',
        num_stages=stages,
        stage_loss_weights=[1, 0.5],
        bbox_head=[head.bbox_head] * stages,
    )
    train = cfg.model.architecture.train_cfg
    train.rcnn = [train.rcnn] * stages
    distiller = cfg.model.distiller
    fc_cls = 'roi_head.bbox_head.{}fc_cls'
    distiller.taps = {
        name: dict(student=fc_cls.format(stage), teacher=fc_cls.format(''))
        for name, stage in (('roi', '1.'),)
    }
    return cfg


def start(folder, backend):
    """Two processes that train from the configs in a folder."""
    run_each(
        *((main, folder, rank, backend) for rank in range(2)),
        timeout=TIMEOUT,
        method='spawn' if backend == 'nccl' else METHOD,
    )


def in_two(folder, configs, backend='gloo'):
    """What each of two processes saw, by the name of the training."""
    for name, cfg in configs.items():
        cfg.dump(folder / f'{name}.py')
    start(folder, backend)
    return {
        name: [
            torch.load(folder / f'{name}_{x}.pth', map_location='cpu')
            for x in range(2)
        ]
        for name in configs
    }


@pytest.fixture(scope='module')
def both(make, retina_teacher, empty_images, tmp_path_factory):
    """Detectors in two processes."""
    no_rois = make('faster_rcnn_lshfm', 3, 2, **CONNECTOR)
    hooks = make('faster_rcnn_lshfm', 4, 2)
    hooks.custom_hooks = [
        dict(type='NonFiniteHook', action='skip'),
        dict(type='AlignmentHook', interval=1),
        dict(type='LossScaleHook', num_batches=2),
    ]
    spoil = dict(type='tests.two_processes.Spoil', iteration=2)
    hooks.of_rank_1 = {'custom_hooks': [*hooks.custom_hooks, spoil]}
    return in_two(
        tmp_path_factory.mktemp('both'),
        dict(
            roi=roi(make, 1, 2),
            dense=dense(make, retina_teacher, 1, 2),
            several=several(make, retina_teacher, 1, 2),
            no_rois=empty_rank(no_rois, empty_images),
            hooks=hooks,
        ),
    )


@pytest.fixture(scope='module')
def more(make, classifier, empty_images, tmp_path_factory):
    """Others, of the slow tests."""
    no_stage = cascade(make('faster_rcnn_lshfm', 3, 2, **CONNECTOR))
    stopped = make('faster_rcnn_lshfm', 2, 2, **CONNECTOR)
    stopped.custom_hooks = [dict(type='mmrazor.StopDistillHook', stop_epoch=0)]
    return in_two(
        tmp_path_factory.mktemp('more'),
        dict(
            classifier=classifier(4),
            no_stage=empty_rank(no_stage, empty_images),
            stopped=stopped,
        ),
    )


def test_two_processes_are_one_with_twice_the_batch(both, make):
    assert_one(both['roi'], train(roi(make, 1, 4)))


def test_two_processes_are_one_for_a_dense_head(both, make, retina_teacher):
    assert_one(both['dense'], train(dense(make, retina_teacher, 1, 4)))


def test_two_processes_are_one_with_two_teachers(both, make, retina_teacher):
    assert_one(both['several'], train(several(make, retina_teacher, 1, 4)))


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs')
def test_two_gpus_are_one_with_twice_the_batch(
    make, retina_teacher, tmp_path, monkeypatch
):
    """NCCL; without TF32, whose error depends on the shapes."""
    monkeypatch.setenv('NVIDIA_TF32_OVERRIDE', '0')  # of the processes
    two = in_two(
        tmp_path, dict(dense=dense(make, retina_teacher, 1, 2)), 'nccl'
    )
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        one = train(dense(make, retina_teacher, 1, 4))
    on_cpu = tree_map(lambda x: x.cpu() if is_tensor(x) else x, one)
    assert_one(two['dense'], on_cpu)


@pytest.mark.slow
def test_two_processes_are_one_for_a_classifier(more, classifier):
    """Whose bias is the median of what both have seen."""
    assert_one(more['classifier'], train(classifier(8)))
    one, other = more['classifier']
    assert one['state'][f'{LSH}lsh_lsh.bias'].any()
    assert_equal(one['state'], other['state'])


def assert_one(two, one):
    """Each loss, each gradient and what a step makes of them."""
    assert [x['wrapped'] for x in two] == [True, True]
    assert not one['wrapped']
    (losses,), pairs = one['losses'], [x['losses'][0] for x in two]
    mimics = [x for x in losses if x.startswith('distill.')]
    assert len(mimics) == 2 and all(losses[x] > 0 for x in mimics)
    for key, value in losses.items():
        seen = [x[key] for x in pairs]
        assert sum(seen) / 2 == pytest.approx(value, rel=1e-5), key
        if key in mimics:  # the processes have other images
            assert seen[0] != seen[1]
    (expected,) = one['gradients']
    for x in two:
        (gradients,) = x['gradients']
        assert_same(gradients, expected)
        assert_same(x['state'], one['state'])


def assert_same(found, expected):
    """To the error of float32, in units of each tensor's largest value."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if value is None:
            assert found[key] is None, key
            continue
        error = (found[key].double() - value.double()).abs().max()
        assert error <= 1e-4 * value.double().abs().max(), (key, error)


def assert_equal(one, other):
    """Bit for bit, but for statistics of images."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        if not key.endswith(('running_mean', 'running_var', '_tracked')):
            assert torch.equal(value, other[key]), key


@pytest.mark.parametrize('name', ['roi', 'dense', 'no_rois'])
def test_all_processes_have_the_same_weights_and_hash_functions(name, both):
    one, other = (x['state'] for x in both[name])
    tap = 'cls' if name == 'dense' else 'roi'
    assert one[f'{LSH}{tap}_lsh.sums'].any()
    assert_equal(one, other)


def test_a_process_without_rois_keeps_up(both):
    """The other one would wait for the gradients of its class layer."""
    assert_keeps_up(*both['no_rois'])


def test_a_nan_of_one_process_is_skipped_by_both(both):
    """And the statistics are of the boxes of both."""
    one, other = both['hooks']
    assert math.isnan(other['losses'][2]['distill.loss_roi_lsh'])
    assert math.isfinite(one['losses'][2]['distill.loss_roi_lsh'])
    for x in (one, other):
        assert (len(x['losses']), len(x['gradients'])) == (4, 3)
        assert x['skipped'] == 1
        assert len(x['angles']) == 4 and 0 < x['angles'][0] < 180
    assert one['angles'] == other['angles']
    assert_equal(one['state'], other['state'])


@pytest.mark.slow
def test_a_process_without_a_stage_keeps_up(more):
    """Of a cascade, whose connector has nothing to do."""
    assert_keeps_up(*more['no_stage'])


def assert_keeps_up(one, other):
    assert len(one['losses']) == len(other['losses']) == 3
    for losses in one['losses']:
        assert losses['distill.loss_roi_lsh'] > 0
    for losses in other['losses']:
        assert losses['distill.loss_roi_lsh'] == 0
    for gradients in zip(one['gradients'], other['gradients'], strict=True):
        assert_equal(*gradients)
    assert all(x is not None for x in other['gradients'][-1].values())


@pytest.mark.slow
def test_distillation_stops_in_all_processes(more):
    """Its connectors are left without work."""
    for x in more['stopped']:
        assert len(x['losses']) == 2
        assert not any('distill' in key for key in x['losses'][-1])
        (weight,) = [
            value
            for key, value in x['gradients'][-1].items()
            if 'connectors' in key and key.endswith('weight')
        ]
        assert not weight.any()


def test_accumulated_gradients_are_those_of_the_big_batch(make):
    """Two batches of two against one of four."""
    small = train(roi(make, 2, 2, **{'optim_wrapper.accumulative_counts': 2}))
    big = train(roi(make, 1, 4))
    (found,), (expected,) = small['gradients'], big['gradients']
    assert_same(found, expected)
    assert_same(small['state'], big['state'])
