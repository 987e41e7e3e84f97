"""The results in Markdown."""

from typing import Any

from recipes import MODELS

PARTS = {
    'pyramid': 'teacher, backbone and neck',
    'head': 'teacher, head',
    'products': 'matrix products of the loss',
    'loss': 'losses',
}


def page(result: dict[str, Any]) -> str:
    """All of it."""
    about = result['machine']
    versions = ', '.join(f'{k} {v}' for k, v in about['versions'].items())
    settings = ''
    if about['compile']:
        settings += ', backbones of students and of our teachers compiled'
    if about['channels_last']:
        settings += ', our teachers in channels-last'
    number, shape = about['images'], images_of(about['size'])
    title = '# Benchmarks' + ' on a GPU' * (about['device'] == 'cuda')
    lines = [
        title + ', mixed precision' * about['amp'],
        '',
        f'    {result["command"]}',
        '',
        f'{about["hardware"]}, {about["threads"]} threads; {versions}; '
        f'commit {about["commit"]}. {number} images of {shape}, to classify '
        f'{about["class_images"]} of {images_of(about["class_size"])}, '
        f'{"mixed precision" if about["amp"] else "float32"}{settings}, '
        f'medians of {about["rounds"]} rounds.',
        '',
        f'A step starts with a batch at hand. To load one of {number} '
        f"generated images through mmdet's pipeline takes "
        f'{ms(result["loading"])} ms in one process.',
        '',
    ]
    for model, arms in result['models'].items():
        steps = [{'arm': k, **step_of(v)} for k, v in arms.items()]
        parts = [
            {'parts, ms': name}
            | {PARTS[k]: ms(x['seconds'][k]) for k in PARTS}
            for name, x in arms.items()
            if 'pyramid' in x['seconds']
        ]
        title = f'## {model}, {MODELS[model]}'
        lines += [title, '', *table(steps), '', *table(parts), '']
    return '\n'.join([*lines, *loss_of(result['loss']), ''])


def images_of(size: list[int]) -> str:
    """Height and width, to read."""
    return f'{size[0]} x {size[1]}'


def step_of(arm: dict[str, Any]) -> dict[str, str]:
    """Cells of an arm."""
    rois = [f'{n} of {px:.0f} px' for n, px in arm['rois'].values()]
    return {
        'ms / step': ms(arm['seconds']['step']),
        'to the plain student': f'{arm["ratio"]:.2f}',
        'to its floor': f'{arm["floor"]:.2f}' if 'floor' in arm else '',
        **{f'to {k}': f'{v:.2f}' for k, v in arm['theirs'].items()},
        'peak, MiB': f'{arm["peak"] / 2**20:.0f}',
        'checkpoint, MB': f'{arm["checkpoint"] / 1e6:.0f}',
        'exported, MB': f'{arm["student"] / 1e6:.0f}'
        if 'student' in arm
        else '',
        'RoIs of student, teacher': ', '.join(rois),
    }


def loss_of(loss: dict[str, Any]) -> list[str]:
    """The section of the loss alone."""
    n, d, k = loss['shape']
    rows = [
        {
            '': name,
            'ms': ms(form['seconds']),
            'to the plain one': f'{form["ratio"]:.2f}',
            'peak beside the inputs, MiB': f'{form["peak"] / 2**20:.0f}',
            'difference of the value': f'{form["value"]:.1e}',
            'of the gradient': f'{form["gradient"]:.1e}',
        }
        for name, form in loss['forms'].items()
    ]
    return [
        '## The LSH loss against its plain formulation',
        '',
        f'N = {n}, D = {d}, K = {k}, forward and backward. Differences are '
        'relative.',
        '',
        *table(rows),
    ]


def ms(seconds: float) -> str:
    """Milliseconds, to read."""
    return f'{seconds * 1000:.{0 if seconds >= 1 else 1}f}'


def table(rows: list[dict[str, str]]) -> list[str]:
    """Rows under the titles of the first, without empty columns."""
    titles = [k for k in rows[0] if any(row.get(k) for row in rows)]
    return [
        f'| {" | ".join(titles)} |',
        '|---' * len(titles) + '|',
        *(f'| {" | ".join(row.get(k, "") for k in titles)} |' for row in rows),
    ]
