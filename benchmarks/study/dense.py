"""Methods for dense heads: where these are tapped, and with what."""

from arm import Arm, Method, Options
from detectors import CWD, FPN, FPN_L2, L2, LSH, LSH_1024, METHODS, distilled

RETINA, GFL = 'bbox_head.retina_cls', 'bbox_head.gfl_cls'
RETINA_BOX = 'bbox_head.retina_reg'
RTMDET = 'bbox_head.rtm_cls'
WIDER = dict(type='ConvConnector', in_channels=48, out_channels=64)


def on_tower(tap: str, cwd: Options) -> dict[str, Method]:
    """Methods for a dense head, on inputs of its class layer ``tap``."""
    lshl2 = [LSH_1024, L2]
    return {
        'l2': Method('L2, class tower', {'cls': tap}, {'cls': [L2]}),
        'lsh': Method('LSH, class tower', {'cls': tap}, {'cls': [LSH_1024]}),
        'lshl2': Method('LSHL2, class tower', {'cls': tap}, {'cls': lshl2}),
        'lshl2_cwd': Method(
            'LSHL2, class tower + CWD',
            {'cls': tap, 'fpn': FPN},
            {'cls': lshl2, 'fpn': [cwd]},
        ),
    }


ON_RETINA, ON_GFL = on_tower(RETINA, CWD), on_tower(GFL, CWD)
RETINA_METHODS = {
    'l2': ON_RETINA['l2'],
    'lshl2': ON_RETINA['lshl2'],
    'lshl2_fpn': Method(
        'LSHL2, class tower + L2, FPN',
        {'cls': RETINA, 'fpn': FPN},
        {'cls': [LSH_1024, L2], 'fpn': [FPN_L2]},
    ),
    'fpn_l2': METHODS['fpn_l2'],
    'pkd': METHODS['pkd'],
    'cwd': METHODS['cwd'],
    'lshl2_cwd': ON_RETINA['lshl2_cwd'],
}
GFL_METHODS = {
    'lshl2': ON_GFL['lshl2'],
    'pkd': METHODS['pkd'],
    'cwd': METHODS['cwd'],
}
RTMDET_METHODS = {
    'lshl2': Method(
        'LSHL2, class tower, K = 256',
        {'cls': RTMDET},
        {'cls': [dict(LSH, num_hashes=256), L2]},
        {'cls': WIDER},
    ),
    'cwd': Method(
        'CWD',
        {'fpn': FPN},
        {'fpn': [CWD]},
        # In the place of that of the class tower.
        options={'model.distiller.connectors': dict(_delete_=True, fpn=WIDER)},
    ),
}
TOWER = dict(layer='bbox_head.cls_convs.1', record='output')


def of_tower(
    title: str, number: int, tap: object = RETINA, **options: object
) -> Method:
    """LSHL2 on RetinaNet's class tower, of some hash functions."""
    hashed = dict(LSH, num_hashes=number, **options)
    return Method(title, {'cls': tap}, {'cls': [hashed, L2]})


def narrow_rtmdet() -> dict[str, Arm]:
    """LSHL2 on RTMDet with half a hash function an entry."""
    lshl2 = RTMDET_METHODS['lshl2']
    method = lshl2._replace(
        title='LSHL2, class tower, K = 32',
        losses={'cls': [dict(LSH, num_hashes=32), L2]},
    )
    return {'lshl2_32': distilled('rtmdet', method, False, 'rtmdet/lshl2')}
