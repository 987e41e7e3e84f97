"""An embedding that makes a classifier as wide as its teacher."""

from mmengine.config import ConfigDict

from ..export.folding import HEADS
from ..utils.configs import stem
from .inspect import View


def add_embedding(
    model: ConfigDict, student: View, teacher: View
) -> tuple[int, int] | None:
    """Give a classifier an embedding as wide as its teacher, if it needs one.

    Unlike a connector it is in the student's own path, so that the classifier
    behind it can be the teacher's; export folds it away. The student's model
    config is changed in place.

    Returns:
        tuple[int, int]: Widths before and after an embedding that is added.
    """
    layers = student.pooled, teacher.pooled
    ours, theirs = (layer and layer.width for layer in layers)
    if ours is None or theirs is None or ours == theirs:
        return None
    neck, head = (dict(model.get(k) or {}) for k in ('neck', 'head'))
    pools = stem(neck.get('type')) == 'GlobalAveragePooling'
    if not pools or stem(head.get('type')) not in HEADS:
        return None
    model.neck = dict(
        type='LinearNeck',
        in_channels=ours,
        out_channels=theirs,
        gap_dim=2,
        norm_cfg=None,
    )
    model.head = dict(head, in_channels=theirs)
    return ours, theirs
