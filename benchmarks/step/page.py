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
    lines = [
        '# Benchmarks',
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
        f'{result["loading"]:.3f} s in one process.',
        '',
    ]
    for model, arms in result['models'].items():
        steps = [{'arm': k, **step_of(v)} for k, v in arms.items()]
        parts = [
            {'parts, s': name}
            | {PARTS[k]: f'{x["seconds"][k]:.3f}' for k in PARTS}
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
        's / step': f'{arm["seconds"]["step"]:.3f}',
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
            's': f'{loss["seconds"][name]:.3f}',
            'peak beside the inputs, MiB': f'{loss["peak"][name] / 2**20:.0f}',
        }
        for name in loss['seconds']
    ]
    ratios = f'{loss["time"]:.2f}', f'{loss["memory"]:.3f}'
    rows.append(dict(zip(rows[0], ('ratio', *ratios), strict=True)))
    return [
        '## The LSH loss against its plain formulation',
        '',
        f'N = {n}, D = {d}, K = {k}, forward and backward.',
        '',
        *table(rows),
        '',
        f'Relative difference of the values {loss["value"]:.1e}, of the '
        f'gradients {loss["gradient"]:.1e}.',
    ]


def table(rows: list[dict[str, str]]) -> list[str]:
    """Rows under the titles of the first, without empty columns."""
    titles = [k for k in rows[0] if any(row.get(k) for row in rows)]
    return [
        f'| {" | ".join(titles)} |',
        '|---' * len(titles) + '|',
        *(f'| {" | ".join(row.get(k, "") for k in titles)} |' for row in rows),
    ]
