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

METRICS = {'single': 'accuracy/top1', 'multi': 'multi-label/mAP'}

ROI = 'roi_head.bbox_head.fc_cls'
RETINA = 'bbox_head.retina_cls'
LOGITS = dict(layer=ROI, record='output')
FPN = dict(layer='neck', record='output')
LSH = dict(type='LSHLoss')
L2 = dict(type='RelativeL2Loss')
PKD = dict(type='PKDLoss', loss_weight=6)
KL = dict(type='KLDivergence', tau=4)
CWD = dict(type='ChannelWiseDivergence', loss_weight=10)
MGD = dict(type='MGDLoss', alpha_mgd=2e-4)
MGD_CONNECTOR = dict(
    type='MGDConnector', student_channels=64, teacher_channels=64
)
PAPER = [
    dict(type='LSHLoss', loss_weight=7),
    dict(type='L2Loss', normalize=False, div_element=True, loss_weight=7),
]


class Method(NamedTuple):
    """Losses at taps; their weights are the middle of those that are tried.

    Attributes:
        title (str): For tables.
        taps (dict): See ``LSHFMDistiller``.
        losses (dict): Likewise.
        connectors (dict): Likewise.
        tuned (bool): Whether the factor of the weights is chosen.
    """

    title: str
    taps: dict[str, Any]
    losses: dict[str, list[dict[str, Any]]]
    connectors: dict[str, Any] = {}
    tuned: bool = True


class Arm(NamedTuple):
    """What is trained.

    Attributes:
        title (str): For tables.
        config (str): Stem of a file in ``configs/shapes``.
        options (dict): What is changed in it.
        method (Method, optional): What it mimics.
        tuned_as (str, optional): Arm whose factor it takes. Defaults to none:
            a factor of 1.
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
        seeds (int): Of each arm, from 0 on.
        arms (dict): Name -> arm.
    """

    seeds: int
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


def few_rois(within: str) -> Options:
    """Half the RoIs of the demo: half of a step's time goes there."""
    return {f'{within}.train_cfg.rcnn.sampler.num': 16}


# What others start from, by the name of its weights; a stage after the other.
NEEDED = [
    {
        'backbone_student': backbone(18, 12, 12),
        'backbone_teacher': backbone(34, 32, 8),
    },
    {
        'faster_rcnn_teacher': Arm(
            'teacher',
            'faster_rcnn_teacher',
            {
                **detector(TEACHER_EPOCHS, 'backbone_teacher'),
                **few_rois('model'),
            },
        ),
    },
]

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
    'fpn_l2': Method('L2, FPN', {'fpn': FPN}, {'fpn': [L2]}),
    'fpn_lshl2': Method('LSHL2, FPN', {'fpn': FPN}, {'fpn': [LSH, L2]}),
    'pkd': Method('PKD', {'fpn': FPN}, {'fpn': [PKD]}),
    'cwd': Method('CWD', {'fpn': FPN}, {'fpn': [CWD]}),
    'mgd': Method('MGD', {'fpn': FPN}, {'fpn': [MGD]}, {'fpn': MGD_CONNECTOR}),
    'lshl2_pkd': Method(
        'LSHL2, RoI + PKD',
        {'roi': ROI, 'fpn': FPN},
        {'roi': [LSH, L2], 'fpn': [PKD]},
    ),
}
NOTHING = Method(
    'nothing',
    {'roi': ROI},
    {'roi': [dict(type='LSHLoss', loss_weight=0)]},
    tuned=False,
)


def faster_rcnn(method: Method, inherit: bool, tuned_as: str = '') -> Arm:
    """A distillation of Faster R-CNN."""
    title = f'{method.title}, inherited head' if inherit else method.title
    options = {
        **detector(EPOCHS, 'backbone_student', 'model.architecture'),
        **few_rois('model.architecture'),
        'model.teacher.cfg_path': f'{WORK}/faster_rcnn_teacher.py',
        'model.teacher_ckpt': f'{WORK}/faster_rcnn_teacher.pth',
        'model.inherit': inherit,
    }
    return Arm(title, 'faster_rcnn_lshfm', options, method, tuned_as)


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
    }


def faster_rcnn_arms() -> dict[str, Arm]:
    """Each method, without and with the teacher's head."""
    alone = {
        **detector(EPOCHS, 'backbone_student'),
        **few_rois('model'),
    }
    arms = {
        'alone': Arm('student alone', 'faster_rcnn_student', alone),
        'alone+inherit': faster_rcnn(NOTHING, True),
    }
    for name, method in METHODS.items():
        for inherit in (False, True):
            arm = f'{name}+inherit' if inherit else name
            arms[arm] = faster_rcnn(
                method, inherit, arm if method.tuned else ''
            )
    return arms


EXPERIMENTS = {'faster_rcnn': Experiment(5, faster_rcnn_arms())}
