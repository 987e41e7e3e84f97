"""Detectors of the study: their data, schedule, methods."""

from typing import Any

from arm import (
    ALONE,
    INHERITED,
    SIZE,
    Arm,
    Method,
    Options,
    control,
    loader_options,
    pretrained,
    schedule,
    taught_by,
)

EPOCHS = 8

ROI = 'roi_head.bbox_head.fc_cls'
FC1, FC2 = (f'roi_head.bbox_head.shared_fcs.{x}' for x in (0, 1))
LOGITS = dict(layer=ROI, record='output')
FPN = dict(layer='neck', record='output')
BALANCED = dict(FPN, weights='balanced')
LSH = dict(type='LSHLoss', loss_weight=4)
LSH_1024 = dict(LSH, num_hashes=1024)  # where 4 D would be too many
L2 = dict(type='RelativeL2Loss', loss_weight=4)
FPN_LSH = dict(type='LSHLoss', std=0.1)  # no class layer to take it from
FPN_L2 = dict(type='RelativeL2Loss')
PKD = dict(type='PKDLoss', loss_weight=6)
KL = dict(type='KLDivergence', tau=4)
CWD = dict(type='ChannelWiseDivergence', loss_weight=10)
CWD_160 = dict(CWD, loss_weight=160)  # the best of those that were tried
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
        type='ResNet',
        depth=depth,
        stem_channels=channels,
        base_channels=channels,
    )
    return crops(f'ResNet-{depth}', kind, 8 * channels, epochs)


def cspnext_of(deepen: float, widen: float, epochs: int) -> Arm:
    """Likewise, with the backbone of RTMDet."""
    kind = dict(
        type='mmdet.CSPNeXt',
        deepen_factor=deepen,
        widen_factor=widen,
        norm_cfg=dict(type='BN'),
        act_cfg=dict(type='SiLU', inplace=True),
    )
    return crops(f'CSPNeXt, {widen:g}', kind, int(1024 * widen), epochs)


def crops(title: str, backbone: Options, channels: int, epochs: int) -> Arm:
    """A classifier of crops, of as many channels."""
    options = {
        **loader_options('crops', None),
        **schedule(epochs),
        'train_dataloader.batch_size': 64,
        'optim_wrapper.optimizer.lr': 0.002,
        'model.backbone': dict(_delete_=True, **backbone),
        'model.head.in_channels': channels,
    }
    return Arm(title, 'single_student', options)


def faster_rcnn(role: str, epochs: int, within: str) -> Options:
    """Faster R-CNN with half the RoIs of the demo: they take half a step."""
    return {
        **detector(epochs, f'backbone_{role}', within),
        f'{within}.train_cfg.rcnn.sampler.num': 16,
    }


def dense(role: str, epochs: int, within: str) -> Options:
    """RetinaNet as the demo's, and GFL."""
    return detector(epochs, f'backbone_{role}', within)


def rtmdet(role: str, epochs: int, within: str) -> Options:
    """RTMDet, from a backbone of its kind."""
    return detector(epochs, f'cspnext_{role}', within)


# As configs of MMDetection have it. Of rates from 0.005 to 0.08 this one
# was the best on validation images for the student alone, one seed.
SGD = dict(
    _delete_=True, type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001
)

DETECTORS = {
    'faster_rcnn': faster_rcnn,
    'retinanet': dense,
    'gfl': dense,
    'rtmdet': rtmdet,
}


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
    'fc2_cwd_tuned': Method(
        'LSHL2, second FC + CWD, weights chosen',
        {'fc2': FC2, 'fpn': FPN},
        {'fc2': [LSH, L2], 'fpn': [CWD]},
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


FC2_BALANCED = MORE_TAPS['fc2_fpn']._replace(
    title='LSHL2, second FC + L2, FPN, half of it on objects',
    taps={'fc2': FC2, 'fpn': BALANCED},
)
FC2_CWD = MORE_TAPS['fc2_fpn']._replace(
    title='LSHL2, second FC + CWD',
    losses={'fc2': [LSH, L2], 'fpn': [CWD_160]},
)


def on_rois(title: str, *losses: Options, **kwargs: Any) -> Method:
    """Losses on RoIs."""
    return Method(title, {'roi': ROI}, {'roi': [*losses]}, **kwargs)


# Both losses and their weights as the authors have them.
PAPER = on_rois(
    "LSHL2, RoI, the paper's",
    dict(type='LSHLoss', loss_weight=7),
    dict(type='L2Loss', normalize=False, div_element=True, loss_weight=7),
)


def distilled(
    detector_name: str, method: Method, inherit: bool, tuned_as: str = ''
) -> Arm:
    """A distillation of one of ``DETECTORS``."""
    title = method.title + (INHERITED if inherit else '')
    options = {
        **DETECTORS[detector_name]('student', EPOCHS, 'model.architecture'),
        **taught_by(detector_name),
        'model.inherit': inherit,
    }
    return Arm(title, f'{detector_name}_lshfm', options, method, tuned_as)


def arms_of(
    detector_name: str,
    tap: str,
    methods: dict[str, Method],
    inherits: bool = True,
) -> dict[str, Arm]:
    """Each method, without the teacher's head and maybe with it.

    Args:
        detector_name (str): Of ``DETECTORS``.
        tap (str): For the control with the teacher's head, which has a weight
            of 0.
        methods (dict): Name -> method.
        inherits (bool): Whether there are students with the teacher's head;
            weights are then chosen with these. Defaults to True.
    """
    options = DETECTORS[detector_name]('student', EPOCHS, 'model')
    arms = {'alone': Arm(ALONE, f'{detector_name}_student', options)}
    if inherits:
        arms['alone+inherit'] = distilled(detector_name, control(tap), True)
    for name, method in methods.items():
        path = f'{detector_name}/{name}{"+inherit" if inherits else ""}'
        arms[name] = distilled(detector_name, method, False, path)
        if inherits:
            arms[f'{name}+inherit'] = distilled(
                detector_name, method, True, path
            )
    return arms
