"""What the study runs: data, models, methods, arms, seeds.

An arm is a config of ``configs`` and what is changed in it: those of
``detectors.py``, ``dense.py``, ``ablations.py``, ``classifiers.py`` and
``photographs.py``.
"""

import classifiers
import dense
import detectors
import photographs
from ablations import ABLATIONS
from arm import SIZE, Arm, Experiment, Options, schedule
from detectors import EPOCHS

# Folder -> seed, images for training, images for validation, size in pixels.
# Detectors learn from 'main', backbones and classifiers of one label from
# 'crops', of several labels from 'small'. Weights of losses are chosen on the
# validation images of 'main' and 'small'; what counts is measured on those of
# 'test' and 'small_test'.
DATA = {
    'crops': (7, 4000, 200, SIZE),
    'main': (0, 640, 400, SIZE),
    'test': (1, 1, 800, SIZE),
    'small': (2, 4000, 400, 64),
    'small_test': (3, 1, 800, 64),
}

LABELS = {'single': 'one label', 'multi': 'several labels'}
SINGLE, MULTI = (classifiers.needed_of(x) for x in LABELS)
TEACHERS = {
    f'{name}_teacher': Arm(
        'teacher', f'{name}_teacher', options('teacher', 2 * EPOCHS, 'model')
    )
    for name, options in detectors.DETECTORS.items()
}
# What others start from, by the name of its weights; a stage after the other.
NEEDED = [
    {
        'backbone_student': detectors.backbone_of(18, 12, 12),
        'backbone_teacher': detectors.backbone_of(34, 32, 8),
        'cspnext_student': detectors.cspnext_of(0.167, 0.125, 12),
        'cspnext_teacher': detectors.cspnext_of(0.33, 0.25, 8),
        **photographs.BACKBONE,
        **SINGLE[0],
    },
    {
        **TEACHERS,
        **photographs.TEACHERS,
        **SINGLE[1],
        **MULTI[0],
    },
    MULTI[1],
]

FASTER_RCNN = {
    **detectors.arms_of('faster_rcnn', detectors.ROI, detectors.METHODS),
    **{
        f'{name}+inherit': detectors.distilled(
            'faster_rcnn', method, True, f'faster_rcnn/{name}+inherit'
        )
        for name, method in detectors.MORE_TAPS.items()
    },
    'fc2_balanced+inherit': detectors.distilled(
        'faster_rcnn',
        detectors.FC2_BALANCED,
        True,
        'faster_rcnn/fc2_fpn+inherit',
    ),
    'fc2_cwd+inherit': detectors.distilled(
        'faster_rcnn', detectors.FC2_CWD, True
    ),
    'fc2_fpn': detectors.distilled(
        'faster_rcnn',
        detectors.MORE_TAPS['fc2_fpn'],
        False,
        'faster_rcnn/fc2_fpn+inherit',
    ),
    'paper': detectors.distilled('faster_rcnn', detectors.PAPER, False),
}


RETINANET = detectors.arms_of('retinanet', dense.RETINA, dense.RETINA_METHODS)


def changed(
    arms: dict[str, Arm], options: Options, *names: str
) -> dict[str, Arm]:
    """Some of the arms, with other options and the same weights."""
    return {
        x: arms[x]._replace(options={**arms[x].options, **options})
        for x in names
    }


INHERITS = '+inherit'  # end of an arm's name; weights are chosen with it
# Of detectors, and with which backbone they begin.
SHAPES = '640 generated images, backbone pretrained on crops of others'

EXPERIMENTS = {
    'faster_rcnn': Experiment(
        'Faster R-CNN',
        5,
        'faster_rcnn_teacher',
        'faster_rcnn/alone',
        FASTER_RCNN,
        (
            ('lshl2+inherit', 'alone+inherit'),
            ('lshl2+inherit', 'l2+inherit'),
            ('lshl2+inherit', 'lsh+inherit'),
            ('lsh', 'l2'),
            ('lsh+inherit', 'l2+inherit'),
            ('lshl2_fpn+inherit', 'lshl2+inherit'),
            ('lshl2_fpn+inherit', 'fpn_l2+inherit'),
            ('lshl2_fpn+inherit', 'pkd+inherit'),
            ('lshl2_fpn+inherit', 'cwd+inherit'),
            ('lshl2+inherit', 'cwd+inherit'),
            ('lshl2_fpn+inherit', 'lshl2_pkd+inherit'),
            ('lshl2_fpn+inherit', 'lshl2_cwd+inherit'),
            ('lshl2_cwd+inherit', 'cwd+inherit'),
            ('kl+inherit', 'alone+inherit'),
            ('mgd+inherit', 'alone+inherit'),
            ('fc2_fpn+inherit', 'alone+inherit'),
            ('fc2_fpn+inherit', 'lshl2_fpn+inherit'),
            ('fc2_fpn+inherit', 'lshl2_cwd+inherit'),
            ('fc2_fpn+inherit', 'cwd+inherit'),
            ('fc2_fpn+inherit', 'fc2_fpn'),
            ('fc2_balanced+inherit', 'fc2_fpn+inherit'),
            ('fc2_cwd+inherit', 'fc2_fpn+inherit'),
            ('fc2_cwd+inherit', 'fc2_balanced+inherit'),
            ('fc2_cwd_tuned+inherit', 'fc2_balanced+inherit'),
            ('fc2_cwd_tuned+inherit', 'fc2_fpn+inherit'),
            ('fc2_cwd+inherit', 'lshl2_cwd+inherit'),
            ('fc2_cwd+inherit', 'cwd+inherit'),
            ('fc2_cwd+inherit', 'alone+inherit'),
            ('lshl2_fpn+inherit', 'lshl2_fpn'),
            ('lshl2_fpn', 'cwd'),
            ('fc2_fpn', 'cwd'),
        ),
        ('alone', 'fc2_balanced+inherit', 'cwd+inherit'),
        f'{SHAPES}, {EPOCHS} epochs',
    ),
    'long': Experiment(
        'Faster R-CNN, students trained as long as the teacher',
        3,
        'faster_rcnn_teacher',
        'long/alone',
        changed(
            FASTER_RCNN,
            schedule(2 * EPOCHS),
            *('alone', 'alone+inherit', 'lshl2_fpn+inherit'),
            *('fc2_fpn+inherit', 'fc2_balanced+inherit'),
            *('cwd+inherit', 'lshl2_cwd+inherit', 'fc2_cwd+inherit'),
        ),
        (
            ('lshl2_fpn+inherit', 'alone+inherit'),
            ('lshl2_fpn+inherit', 'cwd+inherit'),
            ('lshl2_fpn+inherit', 'lshl2_cwd+inherit'),
            ('fc2_fpn+inherit', 'lshl2_fpn+inherit'),
            ('fc2_fpn+inherit', 'cwd+inherit'),
            ('fc2_balanced+inherit', 'fc2_fpn+inherit'),
            ('fc2_balanced+inherit', 'cwd+inherit'),
            ('fc2_cwd+inherit', 'fc2_balanced+inherit'),
        ),
        ('alone', 'fc2_balanced+inherit', 'cwd+inherit'),
        f'{SHAPES}, {2 * EPOCHS} epochs',
    ),
    'few_images': Experiment(
        'Faster R-CNN, student with 64 of 640 images',
        3,
        'faster_rcnn_teacher',
        'few_images/alone',
        changed(
            FASTER_RCNN,
            # As many steps.
            {
                **schedule(10 * EPOCHS),
                'train_dataloader.dataset.indices': 64,
            },
            *('alone', 'alone+inherit', 'lshl2+inherit'),
            *('lshl2_fpn+inherit', 'fc2_fpn+inherit'),
            *('fc2_balanced+inherit', 'fc2_cwd+inherit', 'cwd+inherit'),
        ),
        (
            ('lshl2_fpn+inherit', 'alone+inherit'),
            ('lshl2_fpn+inherit', 'cwd+inherit'),
            ('fc2_fpn+inherit', 'lshl2_fpn+inherit'),
            ('fc2_fpn+inherit', 'cwd+inherit'),
            ('fc2_balanced+inherit', 'fc2_fpn+inherit'),
            ('fc2_balanced+inherit', 'cwd+inherit'),
            ('fc2_cwd+inherit', 'fc2_balanced+inherit'),
        ),
        ('alone', 'fc2_balanced+inherit', 'cwd+inherit'),
        f'64 of {SHAPES}, as many steps, teacher with all 640',
    ),
    'retinanet': Experiment(
        'RetinaNet',
        5,
        'retinanet_teacher',
        'retinanet/alone',
        RETINANET,
        (
            ('lshl2+inherit', 'alone+inherit'),
            ('lshl2+inherit', 'l2+inherit'),
            ('lshl2+inherit', 'pkd+inherit'),
            ('lshl2+inherit', 'cwd+inherit'),
            ('lshl2_fpn+inherit', 'lshl2+inherit'),
            ('lshl2_fpn+inherit', 'cwd+inherit'),
            ('lshl2_fpn+inherit', 'lshl2_fpn'),
            ('lshl2_fpn+inherit', 'fpn_l2+inherit'),
            ('lshl2_cwd+inherit', 'cwd+inherit'),
            ('cwd+inherit', 'alone+inherit'),
            ('cwd+inherit', 'fpn_l2+inherit'),
            ('cwd+inherit', 'pkd+inherit'),
            ('lshl2', 'cwd'),
        ),
        (
            *('alone', 'cwd+inherit', 'pkd+inherit'),
            *('fpn_l2+inherit', 'lshl2+inherit'),
        ),
        f'{SHAPES}, {EPOCHS} epochs',
    ),
    'retinanet_sgd': Experiment(
        'RetinaNet, students trained by SGD',
        3,
        'retinanet_teacher',
        'retinanet_sgd/alone',
        changed(
            RETINANET,
            {'optim_wrapper.optimizer': detectors.SGD},
            *('alone', 'alone+inherit'),
            *('fpn_l2+inherit', 'pkd+inherit', 'cwd+inherit'),
        ),
        (
            ('cwd+inherit', 'alone+inherit'),
            ('cwd+inherit', 'fpn_l2+inherit'),
            ('cwd+inherit', 'pkd+inherit'),
        ),
        ('alone', 'cwd+inherit', 'pkd+inherit', 'fpn_l2+inherit'),
    ),
    'gfl': Experiment(
        'GFL',
        5,
        'gfl_teacher',
        'gfl/alone',
        detectors.arms_of('gfl', dense.GFL, dense.GFL_METHODS),
        (
            ('cwd+inherit', 'alone+inherit'),
            ('cwd+inherit', 'lshl2+inherit'),
            ('cwd+inherit', 'pkd+inherit'),
            ('lshl2', 'cwd'),
        ),
        ('alone', 'cwd+inherit', 'lshl2+inherit', 'pkd+inherit'),
        f'{SHAPES}, {EPOCHS} epochs',
    ),
    'rtmdet': Experiment(
        'RTMDet, heads of two widths',
        3,
        'rtmdet_teacher',
        'rtmdet/alone',
        detectors.arms_of('rtmdet', dense.RTMDET, dense.RTMDET_METHODS, False)
        | dense.narrow_rtmdet(),
        (('lshl2', 'cwd'), ('lshl2_32', 'lshl2'), ('lshl2_32', 'cwd')),
        ('alone', 'lshl2', 'cwd'),
    ),
    **photographs.EXPERIMENTS,
    **{
        task: Experiment(
            f'Classification, {labels}',
            5,
            f'{task}_teacher',
            f'{task}/alone',
            classifiers.arms_of(task),
            classifiers.TASK_PAIRS[task],
            classifiers.TASK_SHORT[task],
        )
        for task, labels in LABELS.items()
    },
    **{
        f'ablation_{name}': Experiment(
            f'Ablation: {title}',
            3,
            f'{base.partition("/")[0]}_teacher',
            base,
            {
                arm: detectors.distilled(
                    base.partition('/')[0],
                    method,
                    base.endswith(INHERITS),
                    base.removesuffix(INHERITS) + INHERITS,
                )
                for arm, method in arms.items()
            },
        )
        for name, (title, base, arms) in ABLATIONS.items()
    },
}
