"""What is compared: configs of ours and of MMRazor's, by model."""

import tempfile
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmrazor_arms import CWD, PKD, of_mmrazor, on_logits, on_maps, on_rois

from lshfm_mm.pairing import write_config

REPO = Path(__file__).resolve().parents[2]
# Dense detectors: teacher and student, which make_config pairs.
DENSE = {
    'retinanet': (
        'mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    ),
    'gfl': (
        'mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
        'mmdet::gfl/gfl_r50_fpn_1x_coco.py',
    ),
    'rtmdet': (
        'mmdet::rtmdet/rtmdet_m_8xb32-300e_coco.py',
        'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py',
    ),
}
RECOMMENDED = (
    'configs/distill/'
    'recommended_roi-fpn_faster-rcnn_r101_faster-rcnn_r50_1x_coco.py'
)
TWO_STAGE = 'configs/distill/faster_rcnn_lshfm.py'
CLASSIFIER = 'configs/imagenet/lshl2-correct_pooled_resnet34_resnet18_in1k.py'
# What is told of the pair on the page.
MODELS = {
    'faster_rcnn': 'R101 -> R50',
    'retinanet': 'R101 -> R50',
    'gfl': 'R101 -> R50',
    'rtmdet': 'RTMDet-m -> RTMDet-s',
    'resnet': 'ResNet-34 -> ResNet-18, ImageNet',
}
WHERE = {'cls': 'class tower', 'fpn': 'FPN', 'lsh': 'pooled'}


def teacher_of(model: str) -> str:
    """Path of the teacher's config."""
    if model in DENSE:
        return DENSE[model][0]
    if model == 'resnet':  # MMRazor reads configs of packages alone
        return 'mmpretrain::resnet/resnet34_8xb32_in1k.py'
    return Config.fromfile(REPO / TWO_STAGE).model.teacher.cfg_path


def configs(
    model: str, teacher_ckpt: str, options: Any
) -> dict[str, dict[str, Any]]:
    """Model configs of the arms, by name; the plain student goes first."""
    if model in DENSE:
        arms = dense_arms(model, teacher_ckpt)
    elif model == 'resnet':
        arms = classifier_arms(teacher_ckpt)
    else:
        arms = two_stage_arms(teacher_ckpt)
    for arm in arms.values():
        arm.architecture.backbone.init_cfg = None
        if arm.type in ('FeatureMimicDistill', 'RoIMimicDistill'):
            arm.teacher_channels_last = options.channels_last
            arm.teacher_compile = options.compile
    return {'student alone': arms[next(iter(arms))].architecture, **arms}


def recipe(model: Any) -> str:
    """Where a config mimics, and by what."""
    tap, losses = next(iter(model.distiller.losses.items()))
    if losses[0].type == 'ChannelWiseDivergence':
        return f'{WHERE[tap]}, CWD'
    return f'{WHERE[tap]}, LSHL2, K = {losses[0].num_hashes}'


def dense_arms(model: str, teacher_ckpt: str) -> dict[str, Any]:
    """What make_config writes, and MMRazor's losses on the same maps."""

    def written(**options: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            out = f'{folder}/distil.py'
            pair = DENSE[model]
            write_config(*pair, out, teacher_ckpt=teacher_ckpt, **options)
            return Config.fromfile(out).model

    recommended, maps = written(), written(loss='cwd')
    found = {f'recommended: {recipe(recommended)}': recommended}
    tower = written(tap='dense'), written(tap='dense', loss='lshl2')
    for ours in (maps, *tower):
        if recipe(ours) != recipe(recommended):
            found[recipe(ours)] = ours
    for name, loss in (('CWD', CWD), ('PKD', PKD)):
        found[f'MMRazor FpnTeacherDistill, {name}'] = of_mmrazor(
            maps, 'FpnTeacherDistill', on_maps(maps, loss)
        )
    return found


def two_stage_arms(teacher_ckpt: str) -> dict[str, Any]:
    """Ours on RoIs and on the FPN, and MMRazor's."""
    cfg = Config.fromfile(REPO / TWO_STAGE)
    ours = cfg.model
    ours.teacher_ckpt = teacher_ckpt

    def variant(**changes: Any) -> Any:
        model = cfg.copy()
        model.merge_from_dict({f'model.{k}': v for k, v in changes.items()})
        return model.model

    losses = [*ours.distiller.losses.lsh, *ours.distiller.losses.l2]
    recommended = Config.fromfile(REPO / RECOMMENDED).model
    recommended.teacher_ckpt = teacher_ckpt
    return {
        'recommended: second FC, LSHL2 + FPN, L2': recommended,
        'RoI, LSHL2': ours,
        'RoI, LSHL2, max_rois=128': variant(max_rois=128),
        'FPN, PKD': variant(**{'distiller.active': ['fpn']}),
        'MMRazor FpnTeacherDistill, PKD': of_mmrazor(
            ours, 'FpnTeacherDistill', on_maps(ours, PKD)
        ),
        'MMRazor SingleTeacherDistill, LSHL2': of_mmrazor(
            ours, 'SingleTeacherDistill', on_rois(losses)
        ),
    }


def classifier_arms(teacher_ckpt: str) -> dict[str, Any]:
    """Ours on the pooled feature, and MMRazor's on the logits."""
    cfg = Config.fromfile(REPO / CLASSIFIER)
    ours = cfg.model
    ours.teacher.cfg_path = teacher_of('resnet')
    ours.teacher_ckpt = teacher_ckpt
    ours.architecture.data_preprocessor = cfg.data_preprocessor
    return {
        recipe(ours): ours,
        'MMRazor SingleTeacherDistill, KL': of_mmrazor(
            ours, 'SingleTeacherDistill', on_logits()
        ),
    }
