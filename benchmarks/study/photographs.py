"""Photographs in the study: a teacher that knows ImageNet teaches a small one.

The student's backbone begins at random, as that of anyone whose own small
network has no weights. Losses of detectors have one weight each, the
recommended recipes' as chosen on shapes. Those of classifiers, and that of an
arm of CWD, are chosen on the validation photographs.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

from arm import (
    ALONE,
    INHERITED,
    WORK,
    Arm,
    Experiment,
    Method,
    Options,
    control,
    one_process,
    schedule,
    taught_by,
)
from classifiers import CLASSES, L2, TASK_METHODS, on_features
from dense import GFL, RETINA, on_tower
from detectors import (
    BALANCED,
    CWD_160,
    FC2,
    FC2_BALANCED,
    FC2_CWD,
    FPN,
    METHODS,
    MORE_TAPS,
)
from detectors import L2 as LAYER_L2


class Photographs(NamedTuple):
    """A set of them.

    Attributes:
        number (int): Of those to train on.
        epochs (int): Of students.
        of_teacher (int): Epochs of their teacher.
    """

    number: int
    epochs: int
    of_teacher: int


SETS = {
    'aquarium': Photographs(441, 12, 16),
    'bccd': Photographs(204, 6, 20),
    'clothing': Photographs(3059, 12, 8),
    'animals': Photographs(441, 20, 20),
}
# Dense detectors: name -> title, input of the class layer.
DENSE = {'retinanet': ('RetinaNet', RETINA), 'gfl': ('GFL', GFL)}
# Name of the teacher, without its last word -> its set.
TAUGHT = {
    **SETS,
    **{f'{x}_{y}': SETS[x] for x in ('aquarium', 'bccd') for y in DENSE},
}

ON_MAPS = {
    'fpn_l2': Method(
        'L2, FPN, half of it on objects',
        {'fpn': BALANCED},
        {'fpn': [LAYER_L2]},
    ),
    'pkd': METHODS['pkd'],
    'cwd': Method('CWD', {'fpn': FPN}, {'fpn': [CWD_160]}),
}
# Of dense heads; 40 and 160 were as good on shapes.
CWD_TUNED = {
    'cwd_tuned': Method(
        'CWD, weight chosen here',
        {'fpn': FPN},
        {'fpn': [dict(CWD_160, loss_weight=40)]},
    )
}
ON_ROIS = {
    **{x: METHODS[x] for x in ('l2', 'lsh', 'lshl2')},
    'fc2_fpn': MORE_TAPS['fc2_fpn'],
    'fc2_balanced': FC2_BALANCED,
    'fc2_cwd': FC2_CWD,
    'fc2_both': Method(
        f'{FC2_BALANCED.title} + CWD',
        {**FC2_BALANCED.taps, 'maps': FPN},
        {**FC2_BALANCED.losses, 'maps': [CWD_160]},
    ),
    **ON_MAPS,
}
# As the recommended recipe has it: K and the bias are not the paper's.
LSH = dict(type='LSHLoss', loss_weight=6)
FEATURES = {
    'l2': TASK_METHODS['single']['l2'],
    'lsh': on_features('LSH', LSH),
    'lshl2': on_features('LSHL2', LSH, L2),
}
UNTUNED = 'lshl2_6'  # as make_config writes it
CLOTHING = {
    'kl': TASK_METHODS['single']['kl'],
    **FEATURES,
    UNTUNED: on_features('LSHL2, weights of 6', LSH, L2),
}
ANIMALS = {'logits_l2': TASK_METHODS['multi']['logits_l2'], **FEATURES}


def options(epochs: int) -> Options:
    """One process, and a schedule."""
    return {**one_process(), **schedule(epochs)}


TEACHERS = {
    f'{name}_teacher': Arm(
        'teacher', f'{name}_teacher', options(photographs.of_teacher)
    )
    for name, photographs in TAUGHT.items()
}
# Of the students whose title says so. It sees no label.
BACKBONE = {
    'backbone_photographs': Arm(
        'backbone',
        'backbone_photographs',
        {
            **schedule(12),
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
        },
    )
}


def arms_of(
    name: str,
    tap: dict[str, Any] | str,
    methods: dict[str, Method],
    epochs: int,
    tuned: Collection[str],
) -> dict[str, Arm]:
    """The student alone, with the teacher's head, and each method.

    Args:
        name (str): Of the teacher, without its last word.
        tap (dict | str): For the control with the teacher's head, which has a
            weight of 0.
        methods (dict): Name -> method.
        epochs (int): Of each student.
        tuned (Collection[str]): Names of the methods whose weights are
            chosen on the validation photographs.
    """
    found = {'alone': Arm(ALONE, f'{name}_student', options(epochs))}
    changed = {**options(epochs), **taught_by(name)}
    for arm, method in {'alone': control(tap), **methods}.items():
        path = f'{name}/{arm}+inherit' if arm in tuned else ''
        found[f'{arm}+inherit'] = Arm(
            method.title + INHERITED, f'{name}_lshfm', changed, method, path
        )
    return found


def taught(arm: Arm, replaces: bool) -> Arm:
    """With a backbone that has learnt from the teacher's, without labels."""
    within = 'model.architecture' if arm.method else 'model'
    options = {
        **arm.options,
        f'{within}.backbone.init_cfg': dict(
            **({'_delete_': True} if replaces else {}),
            type='Pretrained',
            checkpoint=f'{WORK}/backbone_photographs.pth',
            prefix='architecture.backbone.',
        ),
    }
    title = f'{arm.title.removesuffix(INHERITED)}, backbone taught'
    if arm.method:
        title += INHERITED
    return arm._replace(title=title, options=options)


def with_taught(
    spec: Experiment, *names: str, replaces: bool = False
) -> Experiment:
    """With arms whose backbone was taught first, the control among them.

    Args:
        spec (Experiment): The arms to add to.
        *names (str): Of these, ours first.
        replaces (bool): Whether configs say how the backbone begins.
            Defaults to False.
    """
    more = {
        f'taught_{x}': taught(spec.arms[x], replaces)
        for x in ('alone', 'alone+inherit', *names)
    }
    ours = f'taught_{names[0]}'
    pairs = [(ours, x) for x in (*more, spec.short[1]) if x != ours]
    pairs.append(('taught_alone', 'alone'))
    return spec._replace(
        arms={**spec.arms, **more}, pairs=(*spec.pairs, *pairs)
    )


def experiment(
    title: str,
    name: str,
    tap: dict[str, Any] | str,
    methods: dict[str, Method],
    ours: str,
    others: tuple[str, ...],
    epochs: int | None = None,
    key: str | None = None,
    tuned: Collection[str] = (),
    seeds: int = 5,
) -> Experiment:
    """Each arm against the student alone, ours against each other method.

    Args:
        title (str): Of its plot.
        name (str): Key of ``TAUGHT``.
        tap (dict | str): Of the control.
        methods (dict): Name -> method.
        ours (str): Name of the recommended one.
        others (tuple[str, ...]): Names of other losses, for the short table.
        epochs (int, optional): Defaults to those of the set.
        key (str, optional): Of the experiment. Defaults to ``name``.
        tuned (Collection[str]): See ``arms_of``. Defaults to none.
        seeds (int): Of each arm. Defaults to 5.
    """
    photographs = TAUGHT[name]
    epochs = epochs or photographs.epochs
    against = [f'{x}+inherit' for x in ('alone', *methods) if x != ours]
    setting = (
        f'{photographs.number:,} photographs, {epochs} epochs, student from '
        'random weights'
    )
    return Experiment(
        title,
        seeds,
        f'{name}_teacher',
        f'{key or name}/alone',
        arms_of(name, tap, methods, epochs, tuned),
        tuple((f'{ours}+inherit', x) for x in against),
        ('alone', *(f'{x}+inherit' for x in (ours, *others))),
        setting,
    )


def dense_on(name: str, title: str) -> dict[str, Experiment]:
    """The dense detectors on a set of photographs."""
    return {
        f'{name}_{detector}': experiment(
            f'{head} on photographs of {title}',
            f'{name}_{detector}',
            tap,
            on_tower(tap, CWD_160) | ON_MAPS | CWD_TUNED,
            'cwd',
            ('pkd', 'fpn_l2', 'lshl2'),
            tuned=CWD_TUNED,
        )
        for detector, (head, tap) in DENSE.items()
    }


EXPERIMENTS = {
    'aquarium': with_taught(
        experiment(
            'Faster R-CNN on photographs of an aquarium',
            'aquarium',
            FC2,
            ON_ROIS,
            'fc2_balanced',
            ('pkd', 'cwd'),
        ),
        *(
            f'{x}+inherit'
            for x in (
                *('fc2_balanced', 'fc2_cwd', 'cwd', 'pkd'),
                *('l2', 'lsh', 'lshl2'),
            )
        ),
        replaces=True,
    ),
    **{
        name: with_taught(spec, 'cwd+inherit', replaces=True)
        for name, spec in dense_on('aquarium', 'an aquarium').items()
    },
    'bccd': experiment(
        'Faster R-CNN on photographs of blood cells',
        'bccd',
        FC2,
        ON_ROIS,
        'fc2_balanced',
        ('pkd', 'cwd'),
    ),
    'bccd_long': experiment(
        'Faster R-CNN on blood, students trained as long as the teacher',
        'bccd',
        FC2,
        {x: ON_ROIS[x] for x in ('fc2_balanced', 'cwd')},
        'fc2_balanced',
        ('cwd',),
        SETS['bccd'].of_teacher,
        'bccd_long',
    ),
    **dense_on('bccd', 'blood cells'),
    'clothing': experiment(
        'Classification of photographs of clothing',
        'clothing',
        CLASSES,
        CLOTHING,
        UNTUNED,
        ('kl',),
        tuned={*CLOTHING} - {UNTUNED},
    ),
    'animals': with_taught(
        experiment(
            'Classification of photographs of an aquarium, several labels',
            'animals',
            CLASSES,
            ANIMALS,
            'lsh',
            ('logits_l2', 'l2'),
            tuned=ANIMALS,
            seeds=10,
        ),
        'lsh+inherit',
    ),
}
