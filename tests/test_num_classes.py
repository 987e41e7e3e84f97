"""A head's number of classes, against data of several packages."""

import pytest
import torch
from mmdet.registry import MODELS
from mmpretrain.datasets import ImageNet
from torch.utils.data import TensorDataset

from lshfm_mm.errors import ConfigError
from lshfm_mm.training.num_classes import check_num_classes

from .test_detectors import mmdet_config, retinanet


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


def test_an_rpn_alone_takes_all_objects_for_one_class():
    """As mmdet's RPN does, which sets all labels of the data to 0."""
    data = ImageNet(
        ann_file='x', metainfo=dict(classes='abcdef'), lazy_init=True
    )
    model = MODELS.build(mmdet_config('rpn/rpn_r50_fpn_1x_coco.py').model)
    assert model.bbox_head.num_classes == 1
    check_num_classes('model', model, data, evaluates=True)
    dense = MODELS.build(retinanet(4, num_classes=8))
    with pytest.raises(ConfigError, match='bbox_head.num_classes: is 8, and'):
        check_num_classes('model', dense, data, evaluates=True)
