"""Every config of the repository parses and builds, at full size."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT

from lshfm_mm.teacher import model_config

REPO = Path(__file__).parent.parent
CONFIGS = sorted(
    str(path.relative_to(REPO))
    for path in (REPO / 'configs').glob('*/*.py')
    if path.parent.name != '_base_'
)


@pytest.mark.parametrize('path', CONFIGS)
def test_config_builds(path, tmp_path, monkeypatch):
    monkeypatch.chdir(REPO)
    cfg = Config.fromfile(path)
    if 'architecture' not in cfg.model:
        MMDET_MODELS.build(cfg.model)
        return
    # The weights are made here: nothing is downloaded in a test.
    teacher = ROOT.build(model_config('teacher', cfg.model.teacher))
    checkpoint = tmp_path / 'teacher.pth'
    torch.save({'state_dict': teacher.state_dict()}, checkpoint)
    cfg.model.teacher_ckpt = str(checkpoint)
    model = ROOT.build(cfg.model)
    distiller = cfg.model.distiller
    active = distiller.get('active', list(distiller.taps))
    expected = sum(len(distiller.losses[tap]) for tap in active)
    assert len(model.distiller.distill_losses) == expected > 0
    assert all(
        module.is_ready
        for module in model.distiller.distill_losses.modules()
        if type(module).__name__ == 'LSHLoss'
    )


def test_the_example_adds_at_most_ten_lines():
    path = REPO / 'configs/examples/your_detector.py'
    lines = [x for x in path.read_text().splitlines() if x]
    added = [x for x in lines if not x.startswith(('"""', '#', '_base_'))]
    assert len(added) <= 10


def test_variants_differ_in_what_their_names_say():
    def losses(name):
        cfg = Config.fromfile(REPO / f'configs/distill/{name}.py')
        return [
            (x.type, x.loss_weight) for x in cfg.model.distiller.losses.roi
        ]

    assert losses('faster_rcnn_lshfm') == [('LSHLoss', 7), ('L2Loss', 7)]
    assert losses('faster_rcnn_lsh') == [('LSHLoss', 7)]
    assert losses('faster_rcnn_l2') == [('L2Loss', 7)]
