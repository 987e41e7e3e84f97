"""The number of classes of a head, against that of the data."""

import re
from typing import Any

from mmdet.models import RPN
from torch import nn

from ..datasets.unused import warn
from ..errors import ConfigError

# Others, such as those of an RPN or of semantic maps, count something else.
HEADS = re.compile(r'(roi_head\.)?(bbox|query)_head(\.\d+)?|head')


def check_num_classes(
    field: str,
    model: nn.Module,
    dataset: Any,
    learns: bool = True,
    evaluates: bool = False,
) -> None:
    """Compare them.

    Args:
        field (str): Where the model stands in the config, for messages.
        model (nn.Module): A detector or classifier.
        dataset (BaseDataset): The data.
        learns (bool): Whether a class that the head lacks is an error, or a
            warning.
        evaluates (bool): The same of one that the data lack.

    Raises:
        ConfigError: If a head has too few classes, or too many.
    """
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    # An RPN alone takes all objects for one class.
    if not classes or _has_text(dataset) or isinstance(model, RPN):
        return
    learns = learns and not _has_labels_of_its_own(dataset, classes)
    for name, module in model.named_modules():
        number = getattr(module, 'num_classes', None)
        if not HEADS.fullmatch(name) or not isinstance(number, int):
            continue
        fact = (
            f'{field}.{name}.num_classes: is {number}, and the data have '
            f'{len(classes)} classes'
        )
        if (learns and number < len(classes)) or (
            evaluates and number > len(classes)
        ):
            raise ConfigError(f'{fact}; both must be the same')
        if number != len(classes):
            warn(f'{fact}; an evaluation that meets others may fail')


def _has_labels_of_its_own(dataset: Any, classes: Any) -> bool:
    """Whether labels stand in a list, and the classes are the type's own.

    So it is where mmpretrain's ImageNet reads a list of 10 classes.
    """
    of_type = getattr(type(dataset), 'METAINFO', {}).get('classes')
    return (
        hasattr(dataset, 'CLASSES')  # a data set of mmpretrain
        and bool(dataset.ann_file)
        and of_type is not None
        and tuple(of_type) == tuple(classes)
    )


def _has_text(dataset: Any) -> bool:
    """Whether classes are words for the model, not numbers."""
    parts = getattr(dataset, 'datasets', [getattr(dataset, 'dataset', None)])
    return getattr(dataset, 'return_classes', False) or any(
        _has_text(x) for x in parts if x is not None
    )
