"""The teacher's images, against the teacher's own preprocessor."""

import pytest
import torch
from mmdet.models import DetDataPreprocessor, MultiBranchDataPreprocessor
from mmdet.structures import DetDataSample
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models import ClsDataPreprocessor
from torch import nn

from lshfm_mm.errors import ConfigError
from lshfm_mm.teachers.images import ImageConverter

RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.4, 57.1, 57.4])
BGR = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0])


@pytest.fixture
def raw():
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 40, 60), (3, 50, 33)]
    images = [
        torch.randint(0, 256, s, generator=generator, dtype=torch.uint8)
        for s in shapes
    ]
    samples = [DetDataSample(metainfo=dict(img_shape=s[1:])) for s in shapes]
    return images, samples


def run(preprocessor, raw):
    images, samples = raw
    data = dict(inputs=list(images), data_samples=[x.clone() for x in samples])
    return preprocessor(data, training=True)


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        (dict(RGB, bgr_to_rgb=True), BGR),
        (BGR, dict(RGB, bgr_to_rgb=True)),
        (dict(RGB, bgr_to_rgb=True), {}),
        ({}, dict(BGR, pad_value=7)),
        (dict(pad_value=114), dict(RGB, bgr_to_rgb=True)),
        (RGB, dict(RGB, pad_value=7)),
    ],
)
def test_the_teacher_gets_what_its_own_preprocessor_makes(raw, ours, theirs):
    student = DetDataPreprocessor(**ours, pad_size_divisor=32)
    teacher = DetDataPreprocessor(**theirs, pad_size_divisor=32)
    data = run(student, raw)
    before = data['inputs'].clone()
    images = ImageConverter(student, teacher)(**data)
    torch.testing.assert_close(
        images, run(teacher, raw)['inputs'], rtol=1e-5, atol=1e-3
    )
    assert torch.equal(data['inputs'], before)  # the student's stay


def test_the_batch_itself_where_both_do_the_same(raw):
    student = DetDataPreprocessor(**RGB, bgr_to_rgb=True)
    teacher = DetDataPreprocessor(**RGB, bgr_to_rgb=True)
    data = run(student, raw)
    assert ImageConverter(student, teacher)(**data) is data['inputs']


def test_the_size_of_the_batch_stays(raw):
    """Or maps of equal strides would have other sizes."""
    student = DetDataPreprocessor(**RGB, pad_size_divisor=1)
    teacher = DetDataPreprocessor(**BGR, pad_size_divisor=64)
    images = ImageConverter(student, teacher)(**run(student, raw))
    assert images.shape == (2, 3, 50, 60)
    expected = run(teacher, raw)['inputs']
    torch.testing.assert_close(
        images, expected[:, :, :50, :60], rtol=1e-5, atol=1e-3
    )


def test_a_preprocessor_inside_another(raw):
    """mmdet's semi-supervised detectors have one; it normalises."""
    student = DetDataPreprocessor(**BGR)
    teacher = DetDataPreprocessor(**RGB, bgr_to_rgb=True, pad_value=7)
    inside = dict(RGB, type='DetDataPreprocessor', bgr_to_rgb=True)
    wrapped = MultiBranchDataPreprocessor(dict(inside, pad_value=7))
    data = run(student, raw)
    expected = ImageConverter(student, teacher)(**data)
    assert torch.equal(ImageConverter(student, wrapped)(**data), expected)
    data = run(wrapped.data_preprocessor, raw)
    assert ImageConverter(wrapped, teacher)(**data) is data['inputs']


def test_a_preprocessor_that_does_not_tell_is_refused():
    class Own(BaseDataPreprocessor):
        """Normalises by what it does not tell."""

    pair = [DetDataPreprocessor(**RGB), Own()]
    message = 'teacher.data_preprocessor: is a Own without a mean, so that'
    with pytest.raises(ConfigError, match=message):
        ImageConverter(*pair)
    with pytest.raises(ConfigError, match='architecture.data_preprocessor: '):
        ImageConverter(*reversed(pair))
    plain = BaseDataPreprocessor()  # does nothing to images
    assert ImageConverter(plain, DetDataPreprocessor()).same


def test_what_it_multiplies_by_moves_with_its_host_and_is_in_no_file():
    host = nn.Sequential(
        ImageConverter(DetDataPreprocessor(**RGB), DetDataPreprocessor(**BGR))
    )
    assert not host.state_dict() and not [*host.parameters()]
    assert {x.device.type for x in host.to('meta').buffers()} == {'meta'}
    assert len([*host.buffers()]) == 2


def test_a_classifiers_preprocessor_of_mmpretrain():
    images = torch.randint(0, 256, (2, 3, 8, 8)).float()
    student = ClsDataPreprocessor(**RGB, to_rgb=True)
    teacher = ClsDataPreprocessor(**BGR)
    inputs = student(dict(inputs=images))['inputs']
    expected = teacher(dict(inputs=images))['inputs']
    torch.testing.assert_close(
        ImageConverter(student, teacher)(inputs, None),
        expected,
        rtol=1e-5,
        atol=1e-3,
    )
