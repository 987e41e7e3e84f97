"""MMRazor's algorithms with the models of ours, in its long form."""

from typing import Any

from mmengine.config import ConfigDict

PKD = dict(type='PKDLoss', loss_weight=6)
CWD = dict(type='ChannelWiseDivergence', loss_weight=160)
KL = dict(type='KLDivergence', tau=1, loss_weight=3)


def of_mmrazor(ours: Any, kind: str, distiller: dict[str, Any]) -> ConfigDict:
    """An algorithm of MMRazor with the models of one of ours."""
    return ConfigDict(
        _scope_='mmrazor',
        type=kind,
        architecture=ours.architecture,
        teacher={**ours.teacher, 'pretrained': False},
        teacher_ckpt=ours.teacher_ckpt,
        distiller=distiller,
    )


def on_maps(ours: Any, loss: dict[str, Any]) -> dict[str, Any]:
    """A loss on all levels of the necks, as MMRazor's own configs have it."""
    neck = ours.architecture.neck
    levels = len(neck.in_channels)
    if neck.type == 'FPN':
        levels = neck.num_outs
    connector = ours.distiller.get('connectors', {}).get('fpn')
    connectors, between = {}, {}
    if connector:
        between = dict(connector='width')
        connectors['width'] = dict(
            type='ConvModuleConnector',
            in_channel=connector.in_channels,
            out_channel=connector.out_channels,
            norm_cfg=None,
            act_cfg=None,
        )
    recorder = dict(fpn=dict(type='ModuleOutputs', source='neck'))
    sides = dict(preds_S=True, preds_T=False)
    return dict(
        type='ConfigurableDistiller',
        student_recorders=recorder,
        teacher_recorders=recorder,
        connectors=connectors,
        distill_losses={f'loss_map{i}': loss for i in range(levels)},
        loss_forward_mappings={
            f'loss_map{i}': {
                side: dict(
                    from_student=student,
                    recorder='fpn',
                    data_idx=i,
                    **(between if student else {}),
                )
                for side, student in sides.items()
            }
            for i in range(levels)
        },
    )


def on_rois(losses: list[dict[str, Any]]) -> dict[str, Any]:
    """LSH and L2 on the RoIs that each model samples for itself."""
    lsh, l2 = (dict(loss) for loss in losses)
    lsh.update(feature_dim=1024, std=0.01)
    recorder = dict(type='ModuleInputs', source='roi_head.bbox_head.fc_cls')
    return on_a_layer(recorder, ('s_feature', 't_feature'), lsh=lsh, l2=l2)


def on_logits() -> dict[str, Any]:
    """As MMRazor's own config for this pair has it, ``kd_logits``."""
    recorder = dict(type='ModuleOutputs', source='head.fc')
    return on_a_layer(recorder, ('preds_S', 'preds_T'), kl=KL)


def on_a_layer(
    recorder: dict[str, Any], sides: tuple[str, str], **losses: Any
) -> dict[str, Any]:
    """Losses on one tensor, whose arguments are student's and teacher's."""
    data = dict(data_idx=0) if recorder['type'] == 'ModuleInputs' else {}
    arguments = {
        side: dict(from_student=student, recorder='layer', **data)
        for side, student in zip(sides, (True, False), strict=True)
    }
    return dict(
        type='ConfigurableDistiller',
        student_recorders=dict(layer=recorder),
        teacher_recorders=dict(layer=recorder),
        distill_losses={f'loss_{k}': v for k, v in losses.items()},
        loss_forward_mappings={f'loss_{k}': arguments for k in losses},
    )
