"""A head's number of classes, against data of several packages."""

import pytest
import torch
from mmpretrain.datasets import ImageNet
from torch.utils.data import TensorDataset

from lshfm_mm.errors import ConfigError
from lshfm_mm.training.num_classes import check_num_classes


def classifier(number):
    model = torch.nn.Module()
    model.head = torch.nn.Linear(4, number)
    model.head.num_classes = number
    return model


def test_classes_of_a_type_are_not_those_of_ones_own_list():
    """ImageNet names 1000 classes, whatever labels the list has."""
    listed = ImageNet(ann_file='mine.txt', lazy_init=True)
    check_num_classes('model', classifier(10), listed)
    named = ImageNet(
        ann_file='mine.txt', metainfo=dict(classes='abc'), lazy_init=True
    )
    with pytest.raises(ConfigError, match='is 2, and the data have 3 classes'):
        check_num_classes('model', classifier(2), named)
    check_num_classes('model', classifier(3), named)


def test_data_that_name_no_classes_fit_any_head():
    data = TensorDataset(torch.zeros(4, 4))
    check_num_classes('model', classifier(10), data)
