"""What the study runs: data, models, methods, arms, seeds.

An arm is a config of ``configs/shapes`` and what is changed in it. Detectors
see images of 96 px, 16 a step, and start from backbones that have learnt to
classify crops of other images, as elsewhere from ImageNet: without that a
student of a few minutes is far from what it can learn, and seeds differ more
than methods do.
"""

import copy
from typing import Any, NamedTuple

Options = dict[str, Any]  # dotted keys of a config -> values

WORK = 'work_dirs/study'
# Folder -> seed, images for training, images for validation. Backbones learn
# from 'crops', all else from 'main'. Weights of losses are chosen on the
# validation images of 'main'; what counts is measured on those of 'test'.
DATA = {'crops': (7, 4000, 200), 'main': (0, 640, 400), 'test': (1, 1, 800)}
SIZE = 96  # pixels
EPOCHS = 6
TEACHER_EPOCHS = 14
FACTORS = (0.25, 1.0, 4.0)  # of a method's weights, tried on validation
TUNING_SEED = 100
INHERITED = ', inherited head'  # end of a title

METRICS = {'single': 'accuracy/top1', 'multi': 'multi-label/mAP'}

ROI = 'roi_head.bbox_head.fc_cls'
RETINA = 'bbox_head.retina_cls'
LOGITS = dict(layer=ROI, record='output')
FPN = dict(layer='neck', record='output')
LSH = dict(type='LSHLoss', loss_weight=4)
L2 = dict(type='RelativeL2Loss', loss_weight=4)
FPN_LSH = dict(type='LSHLoss', std=0.1)  # no class layer to take it from
FPN_L2 = dict(type='RelativeL2Loss')
PKD = dict(type='PKDLoss', loss_weight=6)
KL = dict(type='KLDivergence', tau=4)
CWD = dict(type='ChannelWiseDivergence', loss_weight=10)
MGD = dict(type='MGDLoss', alpha_mgd=2e-4)
MGD_CONNECTOR = dict(
    type='MGDConnector', student_channels=64, teacher_channels=64
)
LINEAR = dict(
    type='TorchNNConnector',
    module_name='Linear',
    module_args=dict(in_features=256, out_features=256),
)
PAPER = [
    dict(type='LSHLoss', loss_weight=7),
    dict(type='L2Loss', normalize=False, div_element=True, loss_weight=7),
]


class Method(NamedTuple):
    """Losses at taps; their weights are the middle of those that are tried.

    Those of KL, PKD and CWD are of MMRazor's configs, of the others what a
    look at a run or two on the validation images said.

    Attributes:
        title (str): For tables.
        taps (dict): See ``LSHFMDistiller``.
        losses (dict): Likewise.
        connectors (dict): Likewise.
        tuned (bool): Whether the factor of the weights is chosen.
        options (dict): What else is changed in the config.
    """

    title: str
    taps: dict[str, Any]
    losses: dict[str, list[dict[str, Any]]]
    connectors: dict[str, Any] = {}
    tuned: bool = True
    options: Options = {}


class Arm(NamedTuple):
    """What is trained.

    Attributes:
        title (str): For tables.
        config (str): Stem of a file in ``configs/shapes``.
        options (dict): What is changed in it.
        method (Method, optional): What it mimics.
        tuned_as (str, optional): EXPERIMENT/ARM whose factor it takes.
            Defaults to none: a factor of 1.
    """

    title: str
    config: str
    options: Options
    method: Method | None = None
    tuned_as: str = ''

    @property
    def metric(self) -> str:
        """What counts, by its name in the log."""
        return METRICS.get(self.config.partition('_')[0], 'coco/bbox_mAP')


class Experiment(NamedTuple):
    """Arms that are compared.

    Attributes:
        title (str): Of its plot.
        seeds (int): Of each arm, from 0 on.
        teacher (str): Name of its weights.
        baseline (str): What the arms are compared to, EXPERIMENT/ARM.
        arms (dict): Name -> arm.
    """

    title: str
    seeds: int
    teacher: str
    baseline: str
    arms: dict[str, Arm]


def loader_options(folder: str, scale: int | None) -> Options:
    """Images, and no workers: runs go side by side, a core each."""
    options: Options = {}
    for key in ('train_dataloader', 'val_dataloader'):
        options[f'{key}.num_workers'] = 0
        options[f'{key}.persistent_workers'] = False
        options[f'{key}.dataset.data_root'] = f'data/study/{folder}/'
        if scale is not None:
            options[f'{key}.dataset.pipeline.2.scale'] = (scale, scale)
    options['test_dataloader'] = None
    options['test_evaluator'] = options['test_cfg'] = None
    return options


def schedule(epochs: int) -> Options:
    """Cosine over some epochs, after a short warm-up; one checkpoint."""
    return {
        'default_hooks.checkpoint.interval': epochs,
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': epochs,
        'param_scheduler.0.end': 40,
        'param_scheduler.1.end': epochs,
    }


def detector(epochs: int, backbone: str, within: str = 'model') -> Options:
    """Data, schedule and backbone of a detector at a place in a config."""
    annotations = 'data/study/main/annotations/val.json'
    weights = dict(
        _delete_=True,
        type='Pretrained',
        checkpoint=f'{WORK}/{backbone}.pth',
        prefix='backbone.',
    )
    return {
        **loader_options('main', SIZE),
        **schedule(epochs),
        'train_dataloader.batch_size': 16,
        'val_evaluator.ann_file': annotations,
        f'{within}.backbone.init_cfg': weights,
    }


def backbone(depth: int, channels: int, epochs: int) -> Arm:
    """A classifier of crops: its backbone is that of a detector."""
    kind = dict(
        _delete_=True,
        type='ResNet',
        depth=depth,
        stem_channels=channels,
        base_channels=channels,
    )
    options = {
        **loader_options('crops', None),
        **schedule(epochs),
        'train_dataloader.batch_size': 64,
        'optim_wrapper.optimizer.lr': 0.002,
        'model.backbone': kind,
        'model.head.in_channels': 8 * channels,
    }
    return Arm(f'ResNet-{depth}', 'single_student', options)


def faster_rcnn(role: str, epochs: int, within: str) -> Options:
    """Faster R-CNN with half the RoIs of the demo: they take half a step."""
    return {
        **detector(epochs, f'backbone_{role}', within),
        f'{within}.train_cfg.rcnn.sampler.num': 16,
    }


def retinanet(role: str, epochs: int, within: str) -> Options:
    """RetinaNet; its focal loss needs more steps, of fewer images."""
    return {
        **detector(epochs, f'backbone_{role}', within),
        'train_dataloader.batch_size': 8,
    }


DETECTORS = {'faster_rcnn': faster_rcnn, 'retinanet': retinanet}

# What others start from, by the name of its weights; a stage after the other.
NEEDED = [
    {
        'backbone_student': backbone(18, 12, 12),
        'backbone_teacher': backbone(34, 32, 8),
    },
    {
        f'{name}_teacher': Arm(
            'teacher',
            f'{name}_teacher',
            options('teacher', TEACHER_EPOCHS, 'model'),
        )
        for name, options in DETECTORS.items()
    },
]


def few_images() -> Options:
    """A tenth of the images, as many steps."""
    return {
        **schedule(10 * EPOCHS),
        'train_dataloader.dataset.indices': 64,
    }


METHODS = {
    'kl': Method('KL of the logits', {'logits': LOGITS}, {'logits': [KL]}),
    'l2': Method('L2, RoI', {'roi': ROI}, {'roi': [L2]}),
    'lsh': Method('LSH, RoI', {'roi': ROI}, {'roi': [LSH]}),
    'lshl2': Method('LSHL2, RoI', {'roi': ROI}, {'roi': [LSH, L2]}),
    'lshl2_paper': Method(
        "LSHL2, RoI, the paper's weights",
        {'roi': ROI},
        {'roi': PAPER},
        tuned=False,
    ),
    'fpn_l2': Method('L2, FPN', {'fpn': FPN}, {'fpn': [FPN_L2]}),
    'fpn_lshl2': Method(
        'LSHL2, FPN', {'fpn': FPN}, {'fpn': [FPN_LSH, FPN_L2]}
    ),
    'pkd': Method('PKD', {'fpn': FPN}, {'fpn': [PKD]}),
    'cwd': Method('CWD', {'fpn': FPN}, {'fpn': [CWD]}),
    'mgd': Method('MGD', {'fpn': FPN}, {'fpn': [MGD]}, {'fpn': MGD_CONNECTOR}),
    'lshl2_pkd': Method(
        'LSHL2, RoI + PKD',
        {'roi': ROI, 'fpn': FPN},
        {'roi': [LSH, L2], 'fpn': [PKD]},
    ),
}
RETINA_LSH = dict(LSH, num_hashes=1024)
RETINA_METHODS = {
    'l2': Method('L2, class tower', {'cls': RETINA}, {'cls': [L2]}),
    'lsh': Method('LSH, class tower', {'cls': RETINA}, {'cls': [RETINA_LSH]}),
    'lshl2': Method(
        'LSHL2, class tower', {'cls': RETINA}, {'cls': [RETINA_LSH, L2]}
    ),
    'lshl2_paper': Method(
        "LSHL2, class tower, the paper's weights",
        {'cls': RETINA},
        {
            'cls': [
                dict(RETINA_LSH, loss_weight=7),
                dict(type='FeatureL2Loss', loss_weight=7),
            ]
        },
        tuned=False,
    ),
    'pkd': METHODS['pkd'],
    'cwd': METHODS['cwd'],
}


def on_rois(title: str, *losses: Options, **kwargs: Any) -> Method:
    """Losses on RoIs."""
    return Method(title, {'roi': ROI}, {'roi': [*losses]}, **kwargs)


CALIBRATED = {'custom_hooks': [dict(type='LSHCalibrationHook')]}


def times(factor: float, loss: Options) -> Options:
    """A loss with another weight."""
    return dict(loss, loss_weight=factor * loss['loss_weight'])


# Name -> what it is of, EXPERIMENT/ARM that it changes, its arms.
ABLATIONS: dict[str, tuple[str, str, dict[str, Method]]] = {
    'hashes': (
        'number of hash functions, LSH (D = 256)',
        'lsh+inherit',
        {
            f'{k}': on_rois(f'K = {k}', dict(LSH, num_hashes=k))
            for k in (128, 256, 2048, 8192)
        },
    ),
    'bias': (
        'bias of the hash functions, LSH',
        'lsh+inherit',
        {
            kind: on_rois(
                f'bias: {kind}', dict(LSH, bias=kind), options=CALIBRATED
            )
            for kind in ('mean', 'median')
        },
    ),
    'beta': (
        'weight of LSHL2',
        'lshl2+inherit',
        {
            f'x{x:g}': on_rois(f'{x:g} times', times(x, LSH), times(x, L2))
            for x in (0.1, 0.3, 3, 10)
        },
    ),
    'l2': (
        'part of L2 in LSHL2',
        'lshl2+inherit',
        {
            f'x{x:g}': on_rois(f'LSH + {x:g} L2', LSH, times(x, L2))
            for x in (0.1, 0.3, 3, 10)
        },
    ),
    'rois': (
        'RoIs that are mimicked of the 16 of an image, LSHL2',
        'lshl2+inherit',
        {
            **{
                f'{n}': on_rois(
                    f'{n} at random', LSH, L2, options={'model.max_rois': n}
                )
                for n in (2, 4, 8)
            },
            'balanced': Method(
                'all, objects and background of equal weight',
                {'roi': dict(layer=ROI, weights='balanced')},
                {'roi': [LSH, L2]},
            ),
        },
    ),
    'embedding': (
        'linear embedding of the student, LSHL2',
        'lshl2+inherit',
        {
            'linear': on_rois(
                'linear connector', LSH, L2, connectors={'roi': LINEAR}
            )
        },
    ),
}


def distilled(
    detector_name: str, method: Method, inherit: bool, tuned_as: str = ''
) -> Arm:
    """A distillation of 'faster_rcnn' or 'retinanet'."""
    title = method.title + (INHERITED if inherit else '')
    options = {
        **DETECTORS[detector_name]('student', EPOCHS, 'model.architecture'),
        'model.teacher.cfg_path': f'{WORK}/{detector_name}_teacher.py',
        'model.teacher_ckpt': f'{WORK}/{detector_name}_teacher.pth',
        'model.inherit': inherit,
    }
    return Arm(title, f'{detector_name}_lshfm', options, method, tuned_as)


def with_losses(method: Method, factor: float) -> Options:
    """The distiller of a method, its weights times a factor."""
    losses = copy.deepcopy(method.losses)
    for loss in (x for listed in losses.values() for x in listed):
        key = 'alpha_mgd' if 'alpha_mgd' in loss else 'loss_weight'
        loss[key] = factor * loss.get(key, 1)
    return {
        'model.distiller.taps': dict(_delete_=True, **method.taps),
        'model.distiller.losses': dict(_delete_=True, **losses),
        'model.distiller.connectors': dict(method.connectors),
        **copy.deepcopy(method.options),
    }


def arms_of(
    detector_name: str, tap: str, methods: dict[str, Method]
) -> dict[str, Arm]:
    """Each method, without and with the teacher's head."""
    options = DETECTORS[detector_name]('student', EPOCHS, 'model')
    nothing = Method(
        'student alone',
        {'tap': tap},
        {'tap': [dict(type='LSHLoss', num_hashes=8, loss_weight=0)]},
        tuned=False,
    )
    arms = {
        'alone': Arm('student alone', f'{detector_name}_student', options),
        'alone+inherit': distilled(detector_name, nothing, True),
    }
    for name, method in methods.items():
        for inherit in (False, True):
            arm = f'{name}+inherit' if inherit else name
            tuned_as = f'{detector_name}/{arm}' if method.tuned else ''
            arms[arm] = distilled(detector_name, method, inherit, tuned_as)
    return arms


FASTER_RCNN = arms_of('faster_rcnn', ROI, METHODS)
EXPERIMENTS = {
    'faster_rcnn': Experiment(
        'Faster R-CNN',
        5,
        'faster_rcnn_teacher',
        'faster_rcnn/alone',
        FASTER_RCNN,
    ),
    'retinanet': Experiment(
        'RetinaNet',
        3,
        'retinanet_teacher',
        'retinanet/alone',
        arms_of('retinanet', RETINA, RETINA_METHODS),
    ),
    'few_images': Experiment(
        'Faster R-CNN, student with 64 of 640 images',
        5,
        'faster_rcnn_teacher',
        'few_images/alone',
        {
            name: FASTER_RCNN[name]._replace(
                options={**FASTER_RCNN[name].options, **few_images()}
            )
            for name in (
                *('alone', 'alone+inherit', 'lshl2', 'lshl2+inherit'),
                *('pkd+inherit', 'lshl2_pkd+inherit'),
            )
        },
    ),
    **{
        f'ablation_{name}': Experiment(
            f'Ablation: {title}',
            3,
            'faster_rcnn_teacher',
            f'faster_rcnn/{base}',
            {
                arm: distilled('faster_rcnn', x, True, f'faster_rcnn/{base}')
                for arm, x in arms.items()
            },
        )
        for name, (title, base, arms) in ABLATIONS.items()
    },
}
