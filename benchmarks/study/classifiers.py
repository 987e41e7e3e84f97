"""Classifiers of the study: crops with one label, images with several.

All students start from the backbone of one that has learnt alone and go on
for as long, with a teacher or without: from random weights, seeds differ as
much as methods. The student alone keeps its classifier, too.
Teacher and student of several labels start from the backbones of those of one,
as elsewhere from ImageNet.
"""

from typing import Any

from arm import (
    ALONE,
    INHERITED,
    NO_PULL,
    WORK,
    Arm,
    Method,
    Options,
    loader_options,
    pretrained,
    schedule,
    taught_by,
)

EPOCHS = 6
SIZES = {'single': 16, 'multi': 32}  # pixels; objects of about 12
FOLDERS = {'single': ('crops', 'main'), 'multi': ('small', 'small')}
STAGE1_EPOCHS = 2  # of these
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
    ('lshl2', 'embedding'),
    ('lshl2+inherit', 'alone+inherit'),
    ('lshl2+inherit', 'l2+inherit'),
    ('lshl2+inherit', 'lsh+inherit'),
    ('lshl2+inherit', 'lshl2'),
    ('two_stages', 'lshl2'),
    ('two_stages+inherit', 'lshl2+inherit'),
)
TASK_PAIRS = {
    'single': (
        ('lshl2+inherit', 'kl+inherit'),
        ('lshl2_correct+inherit', 'lshl2+inherit'),
        ('alone+inherit', 'embedding'),
        ('lshl2', 'kl'),
        *PAIRS,
    ),
    'multi': (
        ('lsh+inherit', 'logits_l2+inherit'),
        ('lshl2+inherit', 'logits_l2+inherit'),
        ('lsh', 'embedding'),
        ('lsh+inherit', 'alone+inherit'),
        *PAIRS,
    ),
}
# For the short table.
TASK_SHORT = {
    'single': ('alone', 'lshl2+inherit', 'kl+inherit'),
    'multi': ('alone', 'lsh+inherit', 'logits_l2+inherit', 'l2+inherit'),
}
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
NOTHING = on_features(ALONE, NO_PULL)


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


def distilled(
    task: str,
    method: Method,
    inherit: bool,
    tuned_as: str = '',
    epochs: int = EPOCHS,
) -> Arm:
    """A student that learnt alone goes on with a teacher, and wider."""
    start = f'{task}_student'
    options = {
        **classifier(task, start, epochs, 'model.architecture'),
        'custom_hooks': [],
        'load_from': None,
        **taught_by(task),
        'model.inherit': inherit,
    }
    title = method.title + (INHERITED if inherit else '')
    return Arm(title, f'{task}_lshfm', options, method, tuned_as)


def stage1(task: str, inherit: bool) -> Arm:
    """The embedding alone learns."""
    arm = distilled(task, LSHL2, inherit, epochs=STAGE1_EPOCHS)
    changed = {
        'model.calculate_student_loss': False,
        'model.student_trainable': ['neck'],
    }
    return arm._replace(options={**arm.options, **changed})


def needed_of(task: str) -> list[dict[str, Arm]]:
    """Teacher and student, then first stages, by the names of the weights."""
    first = {}
    for role in ('student', 'teacher'):
        start = f'single_{role}' if task == 'multi' else None
        name = f'{task}_{role}'
        first[name] = Arm(role, name, classifier(task, start))
    return [
        first,
        {
            f'{task}_stage1': stage1(task, False),
            f'{task}_stage1_inherit': stage1(task, True),
        },
    ]


def arms_of(task: str) -> dict[str, Arm]:
    """Each method, without and with the teacher's classifier."""
    student = f'{task}_student'
    options = classifier(task, None)
    options['load_from'] = f'{WORK}/{student}.pth'
    embedding = NOTHING._replace(title=EMBEDDED)
    arms = {
        'alone': Arm('student alone', student, options),
        'embedding': distilled(task, embedding, False),
        'alone+inherit': distilled(task, NOTHING, True),
    }
    for name, method in TASK_METHODS[task].items():
        tuned_as = f'{task}/{name}+inherit'
        for end, inherit in (('', False), ('+inherit', True)):
            arms[name + end] = distilled(task, method, inherit, tuned_as)
    for end, inherit in (('', False), ('+inherit', True)):
        first = f'{task}_stage1{end.replace("+", "_")}'
        arm = distilled(
            task,
            LSHL2._replace(title='LSHL2 in two stages'),
            inherit,
            f'{task}/lshl2+inherit',
            EPOCHS - STAGE1_EPOCHS,
        )
        loaded = {'load_from': f'{WORK}/{first}.pth'}
        arms[f'two_stages{end}'] = arm._replace(
            options={**arm.options, **loaded}
        )
    return arms
