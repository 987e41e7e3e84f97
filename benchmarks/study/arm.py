"""What an arm of the study is, and what all arms have in common."""

import copy
import json
import re
from typing import Any, NamedTuple

Options = dict[str, Any]  # dotted keys of a config -> values

WORK = 'work_dirs/study'
SIZE = 96  # pixels
# Of a method's weights, tried on validation. If the best is at an end, that
# end's square is tried, too.
FACTORS = (0.25, 1.0, 4.0)
TUNING_SEED = 100
# What records of the study call a config -> its file, see ``Arm.file``.
CONFIGS = {
    'animals_lshfm': 'recommended_pooled_mobilenet-v2_resnet18-w16_'
    'aquarium-multi',
    'animals_student': 'resnet18-w16_aquarium-multi',
    'animals_teacher': 'mobilenet-v2_aquarium-multi',
    'aquarium_lshfm': 'recommended_roi-fpn_faster-rcnn_mobilenet-v2_'
    'faster-rcnn_r18-w16_aquarium',
    'aquarium_gfl_lshfm': 'recommended_fpn_gfl_mobilenet-v2_gfl_r18-w16_'
    'aquarium',
    'aquarium_gfl_student': 'gfl_r18-w16_aquarium',
    'aquarium_gfl_teacher': 'gfl_mobilenet-v2_aquarium',
    'aquarium_retinanet_lshfm': 'recommended_fpn_retinanet_mobilenet-v2_'
    'retinanet_r18-w16_aquarium',
    'aquarium_retinanet_student': 'retinanet_r18-w16_aquarium',
    'aquarium_retinanet_teacher': 'retinanet_mobilenet-v2_aquarium',
    'aquarium_student': 'faster-rcnn_r18-w16_aquarium',
    'aquarium_teacher': 'faster-rcnn_mobilenet-v2_aquarium',
    'backbone_photographs': 'backbone_mobilenet-v2_resnet18-w16_clothing',
    'bccd_lshfm': 'recommended_roi-fpn_faster-rcnn_mobilenet-v2_'
    'faster-rcnn_r18-w16_bccd',
    'bccd_gfl_lshfm': 'recommended_fpn_gfl_mobilenet-v2_gfl_r18-w16_bccd',
    'bccd_gfl_student': 'gfl_r18-w16_bccd',
    'bccd_gfl_teacher': 'gfl_mobilenet-v2_bccd',
    'bccd_retinanet_lshfm': 'recommended_fpn_retinanet_mobilenet-v2_'
    'retinanet_r18-w16_bccd',
    'bccd_retinanet_student': 'retinanet_r18-w16_bccd',
    'bccd_retinanet_teacher': 'retinanet_mobilenet-v2_bccd',
    'bccd_student': 'faster-rcnn_r18-w16_bccd',
    'bccd_teacher': 'faster-rcnn_mobilenet-v2_bccd',
    'clothing_lshfm': 'recommended_pooled_mobilenet-v2_resnet18-w16_clothing',
    'clothing_student': 'resnet18-w16_clothing',
    'clothing_teacher': 'mobilenet-v2_clothing',
    'faster_rcnn_lshfm': 'lshl2_roi_faster-rcnn_r34_faster-rcnn_r18_shapes',
    'faster_rcnn_student': 'faster-rcnn_r18_shapes',
    'faster_rcnn_teacher': 'faster-rcnn_r34_shapes',
    'gfl_lshfm': 'recommended_fpn_gfl_r34_gfl_r18_shapes',
    'gfl_student': 'gfl_r18_shapes',
    'gfl_teacher': 'gfl_r34_shapes',
    'multi_lshfm': 'lshl2_pooled_resnet18-w16_resnet18-w4_stage2_shapes-multi',
    'multi_student': 'resnet18-w4_shapes-multi',
    'multi_teacher': 'resnet18-w16_shapes-multi',
    'retinanet_lshfm': 'lshl2_cls_retinanet_r34_retinanet_r18_shapes',
    'retinanet_student': 'retinanet_r18_shapes',
    'retinanet_teacher': 'retinanet_r34_shapes',
    'rtmdet_lshfm': 'recommended_cls_rtmdet_w4_rtmdet_w8_shapes',
    'rtmdet_student': 'rtmdet_w8_shapes',
    'rtmdet_teacher': 'rtmdet_w4_shapes',
    'single_lshfm': 'lshl2-correct_pooled_resnet18-w16_resnet18-w4_stage2_'
    'shapes-single',
    'single_student': 'resnet18-w4_shapes-single',
    'single_teacher': 'resnet18-w16_shapes-single',
}
INHERITED = ', inherited head'  # end of a title
ALONE = 'student alone'
NO_PULL = dict(type='LSHLoss', num_hashes=8, loss_weight=0)  # of controls
METRICS = {
    'backbone': 'loss',  # it has no other
    'single': 'accuracy/top1',
    'clothing': 'accuracy/top1',
    'multi': 'multi-label/mAP',
    'animals': 'multi-label/mAP',
}
# Task on photographs -> what makes those of the test be evaluated.
TEST_PHOTOGRAPHS = {
    **{
        x: {
            'val_dataloader.dataset.ann_file': 'test.json',
            'val_evaluator.ann_file': f'data/{x}/test.json',
        }
        for x in ('aquarium', 'bccd')
    },
    'animals': {'val_dataloader.dataset.ann_file': 'multilabel_test.json'},
    'clothing': {
        'val_dataloader.dataset.ann_file': 'test.txt',
        'val_dataloader.dataset.data_prefix': 'test',
    },
}


class Method(NamedTuple):
    """Losses at taps; their weights are the middle of those that are tried.

    Attributes:
        title (str): For tables.
        taps (dict): See ``LSHFMDistiller``.
        losses (dict): Likewise.
        connectors (dict): Likewise.
        options (dict): What else is changed in the config.
    """

    title: str
    taps: dict[str, Any]
    losses: dict[str, list[dict[str, Any]]]
    connectors: dict[str, Any] = {}
    options: Options = {}


class Arm(NamedTuple):
    """What is trained.

    Attributes:
        title (str): For tables.
        config (str): Key of ``CONFIGS``.
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
        return METRICS.get(self.task, 'coco/bbox_mAP')

    @property
    def starts_from(self) -> list[str]:
        """Names of the weights that its config reads."""
        text = json.dumps(self.options)
        return sorted(set(re.findall(rf'{WORK}/(\w+)\.pth', text)))

    @property
    def task(self) -> str:
        """The first word of its config's key."""
        return self.config.partition('_')[0]

    @property
    def folder(self) -> str:
        """Of its config; its images: 'shapes', or photographs."""
        return CONFIGS[self.config].rpartition('_')[2].partition('-')[0]

    @property
    def file(self) -> str:
        """Its config, in ``configs``."""
        return f'{self.folder}/{CONFIGS[self.config]}.py'

    @property
    def test_data(self) -> Options:
        """What makes the images that count those that are evaluated."""
        if self.folder != 'shapes':
            return {**TEST_PHOTOGRAPHS.get(self.task, {})}
        loader, evaluator = 'val_dataloader.dataset', 'val_evaluator.ann_file'
        multi = self.task == 'multi'
        root = f'data/study/{"small_test" if multi else "test"}/'
        found = {f'{loader}.data_root': root}
        if evaluator in self.options:
            found[evaluator] = f'{root}annotations/val.json'
        return found


def control(tap: Any) -> Method:
    """What mimics nothing, for a student that starts as those that do."""
    return Method(ALONE, {'tap': tap}, {'tap': [NO_PULL]})


def taught_by(task: str) -> Options:
    """The teacher of a task."""
    return {
        'model.teacher.cfg_path': f'{WORK}/{task}_teacher.py',
        'model.teacher_ckpt': f'{WORK}/{task}_teacher.pth',
    }


class Experiment(NamedTuple):
    """Arms that are compared.

    Attributes:
        title (str): Of its plot, and of its row in the short table.
        seeds (int): Of each arm, from 0 on.
        teacher (str): Name of its weights.
        baseline (str): What the arms are compared to, EXPERIMENT/ARM.
        arms (dict): Name -> arm.
        pairs (tuple): Names of arms to be held against each other, too.
        short (tuple): Names of arms for the short table: without a teacher,
            as recommended, with losses of others, of which it shows the best
            that was run. Defaults to no row.
        setting (str): Data, schedule and start of the student in that row, if
            its recipe is the one that ``make_config`` writes.
    """

    title: str
    seeds: int
    teacher: str
    baseline: str
    arms: dict[str, Arm]
    pairs: tuple[tuple[str, str], ...] = ()
    short: tuple[str, ...] = ()
    setting: str = ''

    @property
    def recommended(self) -> list[str]:
        """Names of arms as we recommend, also with a taught backbone."""
        found = [y for x in self.short[1:2] for y in (x, f'taught_{x}')]
        return [x for x in found if x in self.arms]

    @property
    def on_photographs(self) -> bool:
        """Whether its images are photographs, not generated ones."""
        return any(x.folder != 'shapes' for x in self.arms.values())


def one_process() -> Options:
    """No workers, since runs go side by side, a core each; and no test."""
    options: Options = {}
    for key in ('train_dataloader', 'val_dataloader'):
        options[f'{key}.num_workers'] = 0
        options[f'{key}.persistent_workers'] = False
    options['test_dataloader'] = None
    options['test_evaluator'] = options['test_cfg'] = None
    return options


def loader_options(folder: str, scale: int | None) -> Options:
    """Generated images, in one process."""
    options = one_process()
    for key in ('train_dataloader', 'val_dataloader'):
        options[f'{key}.dataset.data_root'] = f'data/study/{folder}/'
        if scale is not None:
            options[f'{key}.dataset.pipeline.2.scale'] = (scale, scale)
    return options


def pretrained(arm: str) -> Options:
    """Init of a backbone with that of another run."""
    checkpoint = f'{WORK}/{arm}.pth'
    return dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')


def schedule(epochs: int) -> Options:
    """Cosine over some epochs, after a short warm-up; one checkpoint."""
    return {
        'default_hooks.checkpoint.interval': epochs,
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': epochs,
        'param_scheduler.0.end': 40,
        'param_scheduler.1.end': epochs,
    }


def weight_key(loss: Options) -> str:
    """Which of its arguments is the weight of a loss."""
    return 'alpha_mgd' if 'alpha_mgd' in loss else 'loss_weight'


def with_losses(method: Method, factor: float) -> Options:
    """The distiller of a method, its weights times a factor."""
    # Taps may share losses; each gets its own to be changed.
    losses = {k: [dict(x) for x in v] for k, v in method.losses.items()}
    for loss in (x for listed in losses.values() for x in listed):
        key = weight_key(loss)
        loss[key] = factor * loss.get(key, 1)
    return {
        'model.distiller.taps': dict(_delete_=True, **method.taps),
        'model.distiller.losses': dict(_delete_=True, **losses),
        'model.distiller.connectors': dict(method.connectors),
        **copy.deepcopy(method.options),
    }


def weights_in_words(method: Method | None, factor: float = 1) -> str:
    """Weights of a method's losses, a tap after the other; '' of controls.

    Losses of a tap that have the same are told once.
    """
    taps = []
    for losses in method.losses.values() if method else ():
        weights = [factor * x.get(weight_key(x), 1) for x in losses]
        taps.append(', '.join(dict.fromkeys(f'{x:g}' for x in weights)))
    return '' if taps == ['0'] else ' + '.join(taps)
