"""mmcv's operators on torchvision: what there is, and suppression of boxes.

References are loops in Python floats. Boxes have whole pixels, so that no
IoU of float32 falls on the other side of a threshold.
"""

import ast
import inspect
import math
from itertools import product
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch

from lshfm_mm.compat import mmcv_ext as ext

installed = pytest.importorskip('mmcv._ext')
needs_compiled = pytest.mark.skipif(
    installed.__file__.endswith('.py'),
    reason="the operators of this environment's mmcv are not compiled",
)
ONLY_IN_ONEDL = {'line_nms_forward'}


# What there is


def names_that_mmcv_asks_for():
    """Of its own sources: arguments of load_ext, attributes of ext_module."""
    names = set()
    for file in Path(mmcv.__file__).parent.rglob('*.py'):
        if '_ext' in file.parts:  # ours, where it is installed
            continue
        for node in ast.walk(ast.parse(file.read_text('utf-8'))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr='load_ext'), args=[_, functions]
                ):
                    names.update(ast.literal_eval(functions))
                case ast.Attribute(value=ast.Name(id='ext_module'), attr=name):
                    names.add(name)
    return names


def test_no_function_is_missing_and_none_is_invented():
    asked = names_that_mmcv_asks_for()
    assert len(asked) >= 112
    served, absent = set(ext.__all__), set(ext.NOT_SERVED)
    assert not served & absent
    assert asked - ONLY_IN_ONEDL == (served | absent) - ONLY_IN_ONEDL
    assert all(callable(getattr(ext, name)) for name in asked)


def test_what_is_not_served_is_said_in_a_line():
    message = (
        r"^mmcv's operator roi_align_rotated needs the compiled mmcv: "
        r'python -m lshfm_mm install_mmcv --compiled$'
    )
    with pytest.raises(NotImplementedError, match=message):
        ext.roi_align_rotated_forward(torch.zeros(1), clockwise=True)
    for name in ext.NOT_SERVED:
        with pytest.raises(
            NotImplementedError, match='install_mmcv --compiled'
        ):
            getattr(ext, name)()
    assert not hasattr(ext, 'an_operator_of_tomorrow')


def test_it_imports_torch_torchvision_and_numpy_alone():
    """The set-up copies the folder to where lshfm_mm is not."""
    folder = Path(ext.__file__).parent
    modules = set()
    for file in folder.glob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {x.name.split('.')[0] for x in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level < 2
                if not node.level:
                    modules.add(node.module.split('.')[0])
    standard = {'collections', 'functools', 'math', 'typing', 'warnings'}
    assert modules - standard == {'torch', 'torchvision', 'numpy'}


@needs_compiled
def test_arguments_have_the_names_of_the_compiled_module():
    """pybind writes them into its docstrings."""
    for name in ext.__all__:
        signature = getattr(installed, name).__doc__.split('->')[0]
        arguments = inspect.signature(getattr(ext, name)).parameters
        theirs = [
            x.split(':')[0].strip()
            for x in signature[signature.index('(') + 1 :].split(',')
            if ':' in x
        ]
        assert theirs == list(arguments), name


# Suppression


def some_boxes(n, seed=0, levels=None):
    """Boxes of whole pixels, and scores; few levels make ties."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 40, (n, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 40, (n, 2))], 1)
    scores = rng.random(n)
    if levels:
        scores = np.ceil(scores * levels) / levels
    return (torch.tensor(x, dtype=torch.float32) for x in (boxes, scores))


def iou(a, b, offset=0):
    def area(x1, y1, x2, y2):
        return (x2 - x1 + offset) * (y2 - y1 + offset)

    corners = [max(x, y) for x, y in zip(a[:2], b[:2], strict=True)]
    corners += [min(x, y) for x, y in zip(a[2:], b[2:], strict=True)]
    sides = [
        max(high - low + offset, 0.0)
        for low, high in zip(corners[:2], corners[2:], strict=True)
    ]
    inter = sides[0] * sides[1]
    union = area(*a) + area(*b) - inter
    return inter / union if union else math.nan


def nms_by_loops(boxes, scores, threshold, offset):
    boxes = boxes.tolist()
    left, kept = scores.sort(descending=True)[1].tolist(), []
    while left:
        best, *left = left
        kept.append(best)
        left = [
            i
            for i in left
            if not iou(boxes[best], boxes[i], offset) > threshold
        ]
    return kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize('levels', [None, 3])
def test_nms(threshold, offset, levels):
    """With ties too, in the order in which mmcv sorts these."""
    boxes, scores = some_boxes(400, levels=levels)
    expected = nms_by_loops(boxes, scores, threshold, offset)
    assert 1 < len(expected) < 400
    found = ext.nms(boxes, scores, iou_threshold=threshold, offset=offset)
    assert found.dtype == torch.int64 and found.tolist() == expected
    if levels:
        stable = scores.sort(descending=True, stable=True)[1]
        assert not torch.equal(stable, scores.sort(descending=True)[1])


def test_nms_compares_with_a_threshold_of_single_precision():
    """float32(0.3) is larger than 0.3: an IoU of 3 / 10 is not above it."""
    boxes = torch.tensor([[0.0, 0, 6.5, 1], [3.5, 0, 10, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert ext.nms(boxes, scores, 0.3, 0).tolist() == [0, 1]
    assert ext.nms(boxes, scores, 0.29, 0).tolist() == [0]


def test_nms_of_scores_that_are_no_numbers():
    boxes, scores = some_boxes(50)
    scores[[7, 30]] = torch.nan
    expected = nms_by_loops(boxes, scores, 0.5, 0)
    assert expected[0] in {7, 30}  # torch sorts them first
    assert ext.nms(boxes, scores, 0.5, 0).tolist() == expected
    boxes[11] = torch.nan  # suppresses nothing, is not suppressed
    found = ext.nms(boxes, scores, 0.5, 0).tolist()
    assert found == nms_by_loops(boxes, scores, 0.5, 0) and 11 in found


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_nms_in_half_precision(dtype):
    """Whole pixels below 256 are exact in both; so the boxes are the same."""
    boxes, scores = some_boxes(100, levels=16)
    expected = ext.nms(boxes, scores, 0.5, 1)
    found = ext.nms(boxes.to(dtype), scores.to(dtype), 0.5, 1)
    assert torch.equal(found, expected)


def soft_nms_by_loops(boxes, scores, threshold, sigma, low, method, offset):
    """The algorithm of the paper, which swaps boxes in place."""
    rows = [
        [*box, score, i]
        for i, (box, score) in enumerate(
            zip(boxes.tolist(), scores.tolist(), strict=True)
        )
    ]
    i = 0
    while i < len(rows):
        best = i
        for j in range(i + 1, len(rows)):
            if rows[j][4] > rows[best][4]:
                best = j
        rows[i], rows[best] = rows[best], rows[i]
        j = i + 1
        while j < len(rows):
            overlap = iou(rows[i][:4], rows[j][:4], offset)
            if method == 2:
                rows[j][4] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                rows[j][4] *= 0 if method == 0 else 1 - overlap
            if rows[j][4] < low:
                rows[j] = rows[-1]
                rows.pop()
            else:
                j += 1
        i += 1
    return [row[5] for row in rows], [row[:5] for row in rows]


@pytest.mark.parametrize('method', [0, 1, 2])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('low', [0.0, 0.05, 0.4])
@pytest.mark.parametrize('levels', [None, 3])
def test_soft_nms(method, offset, low, levels):
    boxes, scores = some_boxes(120, levels=levels)
    settings = (0.25, 0.5, low, method, offset)
    expected, rows = soft_nms_by_loops(boxes, scores, *settings)
    dets = torch.full((120, 5), -1.0)
    found = ext.softnms(boxes, scores, dets, *settings)
    assert found.dtype == torch.int64 and found.tolist() == expected
    torch.testing.assert_close(
        dets[: len(rows)], torch.tensor(rows), rtol=1e-5, atol=1e-7
    )
    assert (dets[len(rows) :] == -1).all()
    assert low == 0 or 1 < len(rows) < 120


@pytest.mark.parametrize('method', [0, 1, 2])
def test_soft_nms_of_what_is_no_number(method):
    """A NaN is never the best, unless it comes first: nothing is above it."""
    boxes = torch.tensor([[0.0, 0, 4, 4], [9, 9, 9, 9], [9, 9, 9, 9]])
    boxes = torch.cat([boxes, boxes + 20])
    scores = torch.tensor([0.3, torch.nan, 0.5, 0.7, 0.2, 0.1])
    settings = (0.5, 0.5, 0.01, method, 0)
    for order in ([0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]):
        expected, rows = soft_nms_by_loops(
            boxes[order], scores[order], *settings
        )
        dets = torch.zeros(6, 5)
        found = ext.softnms(boxes[order], scores[order], dets, *settings)
        assert found.tolist() == expected
        torch.testing.assert_close(dets, torch.tensor(rows), equal_nan=True)


@pytest.mark.parametrize('levels', [None, 3])
def test_nms_match(levels):
    boxes, scores = some_boxes(200, levels=levels)
    boxes, left = boxes.tolist(), scores.sort(descending=True)[1].tolist()
    expected = []
    while left:
        best, *left = left
        near = [i for i in left if iou(boxes[best], boxes[i]) >= 0.5]
        left = [i for i in left if i not in near]
        expected.append([best, *near])
    dets = torch.cat([torch.tensor(boxes), scores[:, None]], 1)
    assert ext.nms_match(dets, iou_threshold=0.5) == expected
    assert ext.nms_match(dets.double(), 0.5) == expected
    assert 1 < len(expected) < 200


@pytest.mark.parametrize('mode', [0, 1])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('offset', [0, 1])
def test_bbox_overlaps(mode, aligned, offset):
    one, other = (next(some_boxes(20, seed)) for seed in (0, 1))
    one[3, 2:] = one[3, :2]  # no area
    pairs = [(i, i) for i in range(20)]
    if not aligned:
        pairs = list(product(range(20), range(20)))
    expected = []
    for i, j in pairs:
        a, b = one[i].tolist(), other[j].tolist()
        value = iou(a, b, offset)
        if mode == 1:  # of the first box; inter = iou * union
            sizes = [
                (x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b)
            ]
            inter = value * sum(sizes) / (1 + value)
            value = inter / sizes[0] if sizes[0] else math.nan
        expected.append(value)
    ious = torch.empty(20 if aligned else (20, 20))
    ext.bbox_overlaps(one, other, ious, mode, aligned, offset)
    torch.testing.assert_close(
        ious.flatten(), torch.tensor(expected), equal_nan=True
    )


def test_no_boxes():
    boxes, scores = torch.empty(0, 4), torch.empty(0)
    assert ext.nms(boxes, scores, 0.5, 0).shape == (0,)
    assert ext.nms(boxes, scores, 0.5, 1).dtype == torch.int64
    dets = torch.empty(0, 5)
    found = ext.softnms(boxes, scores, dets, 0.5, 0.5, 0.1, 2, 0)
    assert found.shape == (0,) and found.dtype == torch.int64
    assert ext.nms_match(dets, 0.5) == []
    ious = torch.empty(0, 3)
    ext.bbox_overlaps(boxes, torch.rand(3, 4), ious, 0, False, 0)
    assert ext.nms(torch.rand(1, 4), torch.rand(1), 0.5, 0).tolist() == [0]


def test_boxes_with_a_gradient():
    """mmcv hands its arguments on from inside of a Function of autograd."""
    boxes, scores = (x.requires_grad_() for x in some_boxes(10))
    expected = nms_by_loops(boxes, scores, 0.5, 0)
    assert ext.nms(boxes, scores, 0.5, 0).tolist() == expected
    dets = torch.zeros(10, 5)
    assert len(ext.softnms(boxes, scores, dets, 0.5, 0.5, 0.0, 1, 0)) == 10
    assert dets[:, :4].any()


@needs_compiled
@pytest.mark.parametrize('levels', [None, 3])
def test_the_same_bits_as_the_compiled_operators(levels):
    """Boxes of any size, in the thousands; NaN and boxes without an area."""
    generator = torch.Generator().manual_seed(0)
    _, scores = some_boxes(2000, levels=levels)
    centre = torch.rand(2000, 2, generator=generator) * 500
    half = torch.rand(2000, 2, generator=generator) * 60
    half[:20] = 0
    boxes = torch.cat([centre - half, centre + half], 1)
    scores[5], boxes[9] = torch.nan, torch.nan
    dets = torch.cat([boxes, scores[:, None]], 1)
    for offset in (0, 1):
        found, expected = (
            x.nms(boxes, scores, iou_threshold=0.5, offset=offset)
            for x in (ext, installed)
        )
        assert torch.equal(found, expected)
        for method in (0, 1, 2):
            settings = (0.3, 0.5, 0.05, method, offset)
            both = [torch.zeros(2000, 5) for _ in range(2)]
            found, expected = (
                x.softnms(boxes, scores, y, *settings)
                for x, y in zip((ext, installed), both, strict=True)
            )
            assert torch.equal(found, expected)
            torch.testing.assert_close(
                *both, rtol=1e-6, atol=0, equal_nan=True
            )
            if method < 2:
                np.testing.assert_array_equal(*both)
    assert ext.nms_match(dets, 0.5) == installed.nms_match(dets, 0.5)
    for mode, aligned in product((0, 1), (True, False)):
        both = [torch.zeros(2000, *[2000] * (not aligned)) for _ in range(2)]
        for x, y in zip((ext, installed), both, strict=True):
            x.bbox_overlaps(boxes, boxes.flip(0), y, mode, aligned, 1)
        np.testing.assert_array_equal(*both)
