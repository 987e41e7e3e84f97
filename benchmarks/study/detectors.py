"""Detectors of the study: their data, schedule, methods, ablations."""

from typing import Any

from arm import (
    INHERITED,
    SIZE,
    WORK,
    Arm,
    Method,
    Options,
    loader_options,
    pretrained,
    schedule,
)

EPOCHS = 8

ROI = 'roi_head.bbox_head.fc_cls'
FC1, FC2 = (f'roi_head.bbox_head.shared_fcs.{x}' for x in (0, 1))
RETINA = 'bbox_head.retina_cls'
LOGITS = dict(layer=ROI, record='output')
FPN = dict(layer='neck', record='output')
LSH = dict(type='LSHLoss', loss_weight=4)
LSH_1024 = dict(LSH, num_hashes=1024)  # where 4 D would be too many
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


def detector(epochs: int, backbone: str, within: str = 'model') -> Options:
    """Data, schedule and backbone of a detector at a place in a config."""
    annotations = 'data/study/main/annotations/val.json'
    weights = dict(_delete_=True, **pretrained(backbone))
    return {
        **loader_options('main', SIZE),
        **schedule(epochs),
        'train_dataloader.batch_size': 8,
        'val_evaluator.ann_file': annotations,
        f'{within}.backbone.init_cfg': weights,
    }


def backbone_of(depth: int, channels: int, epochs: int) -> Arm:
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
    """RetinaNet as the demo's."""
    return detector(epochs, f'backbone_{role}', within)


DETECTORS = {'faster_rcnn': faster_rcnn, 'retinanet': retinanet}


METHODS = {
    'kl': Method('KL of the logits', {'logits': LOGITS}, {'logits': [KL]}),
    'l2': Method('L2, RoI', {'roi': ROI}, {'roi': [L2]}),
    'lsh': Method('LSH, RoI', {'roi': ROI}, {'roi': [LSH]}),
    'lshl2': Method('LSHL2, RoI', {'roi': ROI}, {'roi': [LSH, L2]}),
    'fpn_l2': Method('L2, FPN', {'fpn': FPN}, {'fpn': [FPN_L2]}),
    'fpn_lshl2': Method(
        'LSHL2, FPN', {'fpn': FPN}, {'fpn': [FPN_LSH, FPN_L2]}
    ),
    'lshl2_fpn': Method(
        'LSHL2, RoI + L2, FPN',
        {'roi': ROI, 'fpn': FPN},
        {'roi': [LSH, L2], 'fpn': [FPN_L2]},
    ),
    'pkd': Method('PKD', {'fpn': FPN}, {'fpn': [PKD]}),
    'cwd': Method('CWD', {'fpn': FPN}, {'fpn': [CWD]}),
    'mgd': Method(
        'MGD, one generator',
        {'fpn': FPN},
        {'fpn': [MGD]},
        {'fpn': MGD_CONNECTOR},
    ),
    'lshl2_pkd': Method(
        'LSHL2, RoI + PKD',
        {'roi': ROI, 'fpn': FPN},
        {'roi': [LSH, L2], 'fpn': [PKD]},
    ),
    'lshl2_cwd': Method(
        'LSHL2, RoI + CWD',
        {'roi': ROI, 'fpn': FPN},
        {'roi': [LSH, L2], 'fpn': [CWD]},
    ),
}
# Other taps than the class layer, with the teacher's head.
MORE_TAPS = {
    'fc2_fpn': Method(
        'LSHL2, second FC + L2, FPN',
        {'fc2': FC2, 'fpn': FPN},
        {'fc2': [LSH, L2], 'fpn': [FPN_L2]},
    ),
    'fcs_fpn': Method(
        'LSHL2, second FC, class layer + L2, FPN',
        {'fc2': FC2, 'roi': ROI, 'fpn': FPN},
        {'fc2': [LSH, L2], 'roi': [LSH, L2], 'fpn': [FPN_L2]},
    ),
    'fcs_cwd': Method(
        'LSHL2, second FC, class layer + CWD',
        {'fc2': FC2, 'roi': ROI, 'fpn': FPN},
        {'fc2': [LSH, L2], 'roi': [LSH, L2], 'fpn': [CWD]},
    ),
    'all_fpn': Method(
        'LSHL2, both FCs, class layer + L2, FPN',
        {'fc1': FC1, 'fc2': FC2, 'roi': ROI, 'fpn': FPN},
        {
            'fc1': [LSH_1024, L2],
            'fc2': [LSH, L2],
            'roi': [LSH, L2],
            'fpn': [FPN_L2],
        },
    ),
}
RETINA_METHODS = {
    'l2': Method('L2, class tower', {'cls': RETINA}, {'cls': [L2]}),
    'lshl2': Method(
        'LSHL2, class tower', {'cls': RETINA}, {'cls': [LSH_1024, L2]}
    ),
    'lshl2_fpn': Method(
        'LSHL2, class tower + L2, FPN',
        {'cls': RETINA, 'fpn': FPN},
        {'cls': [LSH_1024, L2], 'fpn': [FPN_L2]},
    ),
    'fpn_l2': METHODS['fpn_l2'],
    'pkd': METHODS['pkd'],
    'cwd': METHODS['cwd'],
    'lshl2_cwd': Method(
        'LSHL2, class tower + CWD',
        {'cls': RETINA, 'fpn': FPN},
        {'cls': [LSH_1024, L2], 'fpn': [CWD]},
    ),
}


def on_rois(title: str, *losses: Options, **kwargs: Any) -> Method:
    """Losses on RoIs."""
    return Method(title, {'roi': ROI}, {'roi': [*losses]}, **kwargs)


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
        'lsh+inherit',
        {
            f'{k}': on_rois(f'K = {k}', dict(LSH, num_hashes=k))
            for k in (128, 256, 8192)
        },
    ),
    'bias': (
        'bias of the hash functions, LSH (0 above)',
        'lsh+inherit',
        {
            kind: on_rois(
                f'bias: {kind}', dict(LSH, bias=kind), options=CALIBRATED
            )
            for kind in ('mean', 'median')
        },
    ),
    'std': (
        'standard deviation of the hash functions, LSH',
        'lsh+inherit',
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
        'lsh+inherit',
        {
            f'{seed}': on_rois(f'draw {seed}', dict(LSH, seed=seed))
            for seed in (1, 2)
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
            for x in (0.25, 4)
        },
    ),
    'rois': (
        'RoIs that are mimicked of the 16 of an image, LSHL2',
        'lshl2+inherit',
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
        'lshl2+inherit',
        {
            'fc2': on_layers('second FC', fc2=FC2),
            'fc1': on_layers('first FC: pooled RoI', fc1=FC1),
            'class_fc1': on_layers('class layer, first FC', roi=ROI, fc1=FC1),
        },
    ),
    'stop': (
        'epochs, of the 8, in which LSHL2 counts',
        'lshl2+inherit',
        {
            f'{epochs}': on_rois(
                f'first {epochs}', LSH, L2, options=stopped(epochs)
            )
            for epochs in (4, 6)
        },
    ),
    'connector': (
        'linear connector on what the student gives to LSHL2',
        'lshl2+inherit',
        {
            'linear': on_rois(
                'linear connector', LSH, L2, connectors={'roi': LINEAR}
            )
        },
    ),
}


# Both losses and their weights as the authors have them.
PAPER = on_rois(
    "LSHL2, RoI, the paper's",
    dict(type='LSHLoss', loss_weight=7),
    dict(type='L2Loss', normalize=False, div_element=True, loss_weight=7),
)


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


def arms_of(
    detector_name: str, tap: str, methods: dict[str, Method]
) -> dict[str, Arm]:
    """Each method, without and with the teacher's head."""
    options = DETECTORS[detector_name]('student', EPOCHS, 'model')
    nothing = Method(
        'student alone',
        {'tap': tap},
        {'tap': [dict(type='LSHLoss', num_hashes=8, loss_weight=0)]},
    )
    arms = {
        'alone': Arm('student alone', f'{detector_name}_student', options),
        'alone+inherit': distilled(detector_name, nothing, True),
    }
    for name, method in methods.items():
        tuned_as = f'{detector_name}/{name}+inherit'
        for inherit in (False, True):
            arm = f'{name}+inherit' if inherit else name
            arms[arm] = distilled(detector_name, method, inherit, tuned_as)
    return arms
