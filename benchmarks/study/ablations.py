"""What is changed of an arm, a thing at a time."""

from arm import Method, Options
from dense import RETINA, RETINA_BOX, TOWER, of_tower
from detectors import CWD, FC1, FC2, FPN, L2, LSH, LSH_1024, ROI, on_rois


def on_layers(title: str, **layers: str) -> Method:
    """LSHL2 on the inputs of layers of the box head."""
    return Method(title, layers, dict.fromkeys(layers, [LSH_1024, L2]))


def stopped(epochs: int) -> Options:
    """Nothing but the task after some epochs."""
    hook = dict(type='mmrazor.StopDistillHook', stop_epoch=epochs)
    return {'custom_hooks': [hook]}


def times(factor: float, loss: Options) -> Options:
    """A loss with another weight."""
    return dict(loss, loss_weight=factor * loss['loss_weight'])


def beside_cwd(weight: float) -> Method:
    """LSHL2 on RetinaNet's class tower with weights of its own.

    Args:
        weight (float): Where CWD has 160, which here is 16 times of 10.
    """
    losses = [times(weight / 64, x) for x in (LSH_1024, L2)]
    return Method(
        f'LSHL2, class tower, weights of {weight:g}',
        {'cls': RETINA, 'fpn': FPN},
        {'cls': losses, 'fpn': [CWD]},
    )


CALIBRATED = {'custom_hooks': [dict(type='LSHCalibrationHook')]}
CLASS_STD = 0.026  # of the weights of the teacher's class layer
LINEAR = dict(
    type='TorchNNConnector',
    module_name='Linear',
    module_args=dict(in_features=256, out_features=256),
)
# Name -> what it is of, the arm that it changes, its arms.
ABLATIONS: dict[str, tuple[str, str, dict[str, Method]]] = {
    'hashes': (
        'number of hash functions, LSH (D = 256, K = 1024)',
        'faster_rcnn/lsh+inherit',
        {
            f'{k}': on_rois(f'K = {k}', dict(LSH, num_hashes=k))
            for k in (128, 256, 8192)
        },
    ),
    'bias': (
        'bias of the hash functions, LSH (0 above)',
        'faster_rcnn/lsh+inherit',
        {
            kind: on_rois(
                f'bias: {kind}', dict(LSH, bias=kind), options=CALIBRATED
            )
            for kind in ('mean', 'median')
        },
    ),
    'std': (
        'standard deviation of the hash functions, LSH',
        'faster_rcnn/lsh+inherit',
        {
            f'x{x:g}': on_rois(
                f'{x:g} times that of the class layer',
                dict(LSH, std=x * CLASS_STD),
            )
            for x in (0.1, 10)
        },
    ),
    'draw': (
        'other draws of the hash functions, LSH',
        'faster_rcnn/lsh+inherit',
        {
            f'{seed}': on_rois(f'draw {seed}', dict(LSH, seed=seed))
            for seed in (1, 2)
        },
    ),
    'beta': (
        'weight of LSHL2',
        'faster_rcnn/lshl2+inherit',
        {
            f'x{x:g}': on_rois(f'{x:g} times', times(x, LSH), times(x, L2))
            for x in (0.1, 0.3, 3, 10)
        },
    ),
    'l2': (
        'part of L2 in LSHL2',
        'faster_rcnn/lshl2+inherit',
        {
            f'x{x:g}': on_rois(f'LSH + {x:g} L2', LSH, times(x, L2))
            for x in (0.25, 4)
        },
    ),
    'own_head': (
        'weight of L2 alone in a head of its own',
        'faster_rcnn/l2',
        {'x4': on_rois('4 times', times(4, L2))},
    ),
    'rois': (
        'RoIs that are mimicked of the 16 of an image, LSHL2',
        'faster_rcnn/lshl2+inherit',
        {
            **{
                f'{n}': on_rois(
                    f'{n}, objects first',
                    LSH,
                    L2,
                    options={'model.max_rois': n},
                )
                for n in (2, 4)
            },
            'balanced': Method(
                'all, objects and background of equal weight',
                {'roi': dict(layer=ROI, weights='balanced')},
                {'roi': [LSH, L2]},
            ),
        },
    ),
    'tap': (
        'layers whose inputs LSHL2 compares (class layer above)',
        'faster_rcnn/lshl2+inherit',
        {
            'fc2': on_layers('second FC', fc2=FC2),
            'fc1': on_layers('first FC: pooled RoI', fc1=FC1),
            'class_fc1': on_layers('class layer, first FC', roi=ROI, fc1=FC1),
        },
    ),
    'stop': (
        'epochs, of the 8, in which LSHL2 counts',
        'faster_rcnn/lshl2+inherit',
        {
            f'{epochs}': on_rois(
                f'first {epochs}', LSH, L2, options=stopped(epochs)
            )
            for epochs in (4, 6)
        },
    ),
    'connector': (
        'linear connector on what the student gives to LSHL2',
        'faster_rcnn/lshl2+inherit',
        {
            'linear': on_rois(
                'linear connector', LSH, L2, connectors={'roi': LINEAR}
            )
        },
    ),
    'beside_cwd': (
        'beside CWD on a dense head',
        'retinanet/cwd+inherit',
        {f'{x}': beside_cwd(x) for x in (1, 4)},
    ),
    'towers': (
        'towers of a dense head, LSHL2 (class tower above)',
        'retinanet/lshl2+inherit',
        {
            'both': Method(
                'class and box tower',
                {'cls': RETINA, 'box': RETINA_BOX},
                dict.fromkeys(('cls', 'box'), [LSH_1024, L2]),
            )
        },
    ),
    'dense_hashes': (
        'hash functions on a dense head, LSHL2 (D = 576, K = 1024)',
        'retinanet/lshl2+inherit',
        {
            **{f'{k}': of_tower(f'K = {k}', k) for k in (36, 288)},
            'map': of_tower(
                'the map itself, D = 64, K = 256', 256, TOWER, std='features'
            )._replace(options=CALIBRATED),
        },
    ),
}
