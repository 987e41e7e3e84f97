"""Classifiers of the study: crops with one label, images with several.

Those of several labels start from the backbones of those of one, as elsewhere
from ImageNet.
"""

from typing import Any

from arm import (
    INHERITED,
    WORK,
    Arm,
    Method,
    Options,
    loader_options,
    pretrained,
    schedule,
)

EPOCHS = 6
SIZES = {'single': 16, 'multi': 32}  # pixels; objects of about 12
FOLDERS = {'single': ('crops', 'main'), 'multi': ('small', 'small')}
STAGE1_EPOCHS = 3
EMBEDDED = 'student alone, with the embedding'
WIDTHS = dict(in_channels=32, out_channels=128)  # of the embedding
CLASSES = 'head.fc'
LOGITS = dict(layer=CLASSES, record='output')
LSH = dict(type='LSHLoss', num_hashes=2048, bias='median', loss_weight=6)
L2 = dict(type='RelativeL2Loss', loss_weight=6)
KL = dict(type='KLDivergence', tau=4)
CALIBRATED = {
    'custom_hooks': [dict(type='LSHCalibrationHook', num_batches=None)]
}


def on_features(
    title: str, *losses: Options, weights: str = 'uniform', **kwargs: Any
) -> Method:
    """Losses on what the class layer reads."""
    tap = dict(layer=CLASSES, weights=weights)
    return Method(title, {'pooled': tap}, {'pooled': [*losses]}, **kwargs)


# Of both tasks.
PAIRS = (
    ('lshl2+inherit', 'alone+inherit'),
    ('lshl2+inherit', 'l2+inherit'),
    ('lshl2+inherit', 'lsh+inherit'),
    ('lshl2+inherit', 'lshl2'),
)
TASK_PAIRS = {
    'single': (
        ('lshl2+inherit', 'kl+inherit'),
        ('lshl2', 'embedding'),
        ('lshl2_correct+inherit', 'lshl2+inherit'),
        *PAIRS,
    ),
    'multi': (('lshl2+inherit', 'logits_l2+inherit'), *PAIRS),
}
STAGE_PAIRS = (
    ('two_stages', 'one_stage'),
    ('two_stages+inherit', 'one_stage+inherit'),
)
LSHL2 = on_features('LSHL2', LSH, L2, options=CALIBRATED)
METHODS = {
    'l2': on_features('L2', L2),
    'lsh': on_features('LSH', LSH, options=CALIBRATED),
    'lshl2': LSHL2,
}
TASK_METHODS = {
    'single': {
        'kl': Method('KL of the logits', {'logits': LOGITS}, {'logits': [KL]}),
        **METHODS,
        'lshl2_correct': on_features(
            'LSHL2, correct only',
            *(LSH, L2),
            weights='correct',
            options=CALIBRATED,
        ),
    },
    'multi': {
        # Softmax, and so KL, is of classes that exclude each other.
        'logits_l2': Method(
            'L2 of the logits', {'logits': LOGITS}, {'logits': [L2]}
        ),
        **METHODS,
    },
}
NOTHING = on_features(
    'student alone',
    dict(type='LSHLoss', num_hashes=8, loss_weight=0),
)


def classifier(
    task: str,
    backbone: str | None,
    epochs: int = EPOCHS,
    within: str = 'model',
) -> Options:
    """Data, schedule and backbone of a classifier at a place in a config."""
    load = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(SIZES[task], SIZES[task])),
    ]
    flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
    pack = dict(type='PackInputs')
    train, val = FOLDERS[task]
    options = {
        **loader_options(train, None),
        **schedule(epochs),
        'train_dataloader.batch_size': 64,
        'train_dataloader.dataset.pipeline': [*load, flip, pack],
        'val_dataloader.dataset.pipeline': [*load, pack],
        'val_dataloader.batch_size': 100,
        'val_dataloader.dataset.data_root': f'data/study/{val}/',
    }
    if task == 'multi':  # several shapes, each in a small part of the image
        wider = {} if within == 'model' else WIDTHS
        pooling = dict(_delete_=True, type='GlobalMaxPooling', **wider)
        options[f'{within}.neck'] = pooling
        options['custom_imports'] = dict(imports=['lshfm_mm'])
    start = None if backbone is None else pretrained(backbone)
    options[f'{within}.backbone.init_cfg'] = start
    return options


def start_of(task: str, role: str) -> str | None:
    """Whose backbone it starts from."""
    return f'single_{role}' if task == 'multi' else None


def distilled(
    task: str,
    method: Method,
    inherit: bool,
    tuned_as: str = '',
    backbone: str | None = None,
    epochs: int = EPOCHS,
) -> Arm:
    """A distillation of a classifier; a linear embedding widens it."""
    options = {
        **classifier(task, backbone, epochs, 'model.architecture'),
        'custom_hooks': [],
        'load_from': None,
        'model.teacher.cfg_path': f'{WORK}/{task}_teacher.py',
        'model.teacher_ckpt': f'{WORK}/{task}_teacher.pth',
        'model.inherit': inherit,
    }
    title = method.title + (INHERITED if inherit else '')
    return Arm(title, f'{task}_lshfm', options, method, tuned_as)


def stage1(task: str, inherit: bool) -> Arm:
    """The embedding alone learns, on the backbone of the student alone."""
    arm = distilled(
        task,
        LSHL2,
        inherit,
        backbone=f'{task}_student',
        epochs=STAGE1_EPOCHS,
    )
    changed = {
        'model.calculate_student_loss': False,
        'model.student_trainable': ['neck'],
    }
    return arm._replace(options={**arm.options, **changed})


def needed_of(task: str) -> list[dict[str, Arm]]:
    """Teacher and student, then first stages, by the names of the weights."""
    return [
        {
            f'{task}_{role}': Arm(
                role, f'{task}_{role}', classifier(task, start_of(task, role))
            )
            for role in ('student', 'teacher')
        },
        {
            f'{task}_stage1': stage1(task, False),
            f'{task}_stage1_inherit': stage1(task, True),
        },
    ]


def arms_of(task: str) -> dict[str, Arm]:
    """Each method, without and with the teacher's classifier."""
    start = start_of(task, 'student')
    alone = Arm('student alone', f'{task}_student', classifier(task, start))
    arms = {
        'alone': alone,
        'embedding': distilled(
            task, NOTHING._replace(title=EMBEDDED), False, backbone=start
        ),
        'alone+inherit': distilled(task, NOTHING, True, backbone=start),
    }
    for name, method in TASK_METHODS[task].items():
        tuned_as = f'{task}/{name}+inherit'
        for end, inherit in (('', False), ('+inherit', True)):
            arms[name + end] = distilled(
                task, method, inherit, tuned_as, start
            )
    return arms


def stages_of(task: str) -> dict[str, Arm]:
    """A student that is trained already goes on, as long in all arms."""
    epochs = EPOCHS + STAGE1_EPOCHS
    student = f'{task}_student'
    options = classifier(task, None, epochs)
    options['load_from'] = f'{WORK}/{student}.pth'
    arms = {'alone': Arm('student alone', student, options)}
    factor = f'{task}/lshl2+inherit'
    for end, inherit in (('', False), ('+inherit', True)):
        one = distilled(task, LSHL2, inherit, factor, student, epochs)
        two = distilled(task, LSHL2, inherit, factor, student)
        first = f'{task}_stage1{end.replace("+", "_")}'
        arms[f'one_stage{end}'] = one._replace(
            title=one.title.replace('LSHL2', 'LSHL2 in one stage')
        )
        arms[f'two_stages{end}'] = two._replace(
            title=two.title.replace('LSHL2', 'LSHL2 in two stages'),
            options={**two.options, 'load_from': f'{WORK}/{first}.pth'},
        )
    return arms
