"""What a small CNN learns from a teacher, without any label.

A folder of photographs, one folder a class, is all the data. Its labels are
for the probe alone: a linear classifier on the frozen, pooled feature, whose
regularisation is chosen on ``val``; reported is its accuracy on ``test``. The
same student is probed at its start, with random weights, and the teacher too.

The student's file comes from tools/train.py and tools/export_student.py, and
goes back into a plain backbone by ``init_cfg``.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import commit, processor
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.utils.data import DataLoader

import lshfm_mm  # noqa: F401
from lshfm_mm.utils.configs import model_config

REPO = Path(__file__).resolve().parent.parent
EXAMPLE = REPO / 'configs/examples/foundation_teacher.py'
STUDENT = dict(type='ResNet', depth=18, base_channels=32, stem_channels=32)
WIDTH = 256  # of its pooled feature
TEACHERS: dict[str, dict[str, Any]] = {
    'mobilenet_v2': dict(backbone=dict(type='MobileNetV2'), width=1280),
    # DINOv2's shape, small; its weights are random.
    'vit': dict(
        backbone=dict(
            type='VisionTransformer',
            arch=dict(
                embed_dims=96,
                num_layers=4,
                num_heads=3,
                feedforward_channels=384,
            ),
            img_size=518,
            patch_size=14,
            layer_scale_init_value=1.0,
        ),
        width=96,
    ),
}
LOSSES = {
    'l2': [dict(type='RelativeL2Loss')],
    'lsh': [dict(type='LSHLoss', std='features', bias='median')],
    'lshl2': [
        dict(type='LSHLoss', std='features', bias='median'),
        dict(type='RelativeL2Loss'),
    ],
}
PENALTIES = (1, 0.1, 0.01, 0.001, 0.0001)  # each starts from the one before


def pools(backbone: dict[str, Any]) -> bool:
    """Whether it gives maps, to be pooled, and no class token."""
    return backbone['type'] != 'VisionTransformer'


def classifier(backbone: dict[str, Any]) -> dict[str, Any]:
    """A headless model of mmpretrain, with ImageNet's statistics."""
    neck = dict(type='GlobalAveragePooling') if pools(backbone) else None
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        neck=neck,
        data_preprocessor=dict(
            type='ClsDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            to_rgb=True,
        ),
    )


def build(backbone: dict[str, Any], seed: int = 0) -> nn.Module:
    """Build such a model and initialise it."""
    torch.manual_seed(seed)
    model = MODELS.build(model_config('model', classifier(backbone)))
    model.init_weights()
    model.eval()
    return model


def train(args: argparse.Namespace, seed: int, folder: Path) -> Path:
    """Distil by the tools; give the exported student, or one of before."""
    out = folder / 'student.pth'
    if out.exists():
        return out
    teacher = TEACHERS[args.teacher]
    cfg = Config.fromfile(EXAMPLE)
    cfg.model.architecture = classifier(STUDENT)
    cfg.model.teacher = classifier(teacher['backbone'])
    cfg.model.teacher_ckpt = str(args.teacher_ckpt)
    cfg.model.teacher_precision = None
    # What its patches divide.
    cfg.model.teacher_size = teacher['backbone'].get('patch_size')
    cfg.model.teacher_channels_last = args.teacher != 'vit'
    where = 'neck' if pools(teacher['backbone']) else 'backbone'
    cfg.model.distiller.taps.pooled.teacher = where
    cfg.model.distiller.connectors.pooled.update(
        in_features=WIDTH, out_features=teacher['width']
    )
    cfg.model.distiller.losses.pooled = LOSSES[args.losses]
    loader = cfg.train_dataloader
    loader.update(batch_size=args.batch, num_workers=0)
    loader.update(persistent_workers=False, drop_last=True)
    loader.dataset.data_root = str(args.data / 'train')
    crop = dict(type='RandomResizedCrop', scale=args.size)
    crop['crop_ratio_range'] = (0.3, 1.0)
    loader.dataset.pipeline[1] = crop
    cfg.optim_wrapper = dict(
        type='mmrazor.BFloat16OptimWrapper',
        optimizer=dict(type='AdamW', lr=args.lr, weight_decay=0.05),
    )
    steps = args.epochs * (count(args.data / 'train') // args.batch)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=args.epochs)
    warm = min(100, steps // 10) + 1
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=warm),
        dict(
            type='CosineAnnealingLR', by_epoch=False, begin=warm, T_max=steps
        ),
    ]
    cfg.default_hooks.checkpoint.interval = args.epochs
    cfg.default_hooks.logger.interval = 20
    cfg.custom_hooks = [dict(type='LSHCalibrationHook', num_batches=20)]
    cfg.randomness = dict(seed=seed)
    cfg.pop('auto_scale_lr', None)
    folder.mkdir(parents=True, exist_ok=True)
    cfg.dump(folder / 'distil.py')
    run('train', folder / 'distil.py', '--work-dir', folder / 'work')
    last = folder / f'work/epoch_{args.epochs}.pth'
    run('export_student', last, '-o', out)
    return out


def run(tool: str, *args: object) -> None:
    """Run a tool of the repository."""
    command = [sys.executable, REPO / f'tools/{tool}.py', *args]
    subprocess.run([str(x) for x in command], check=True, cwd=REPO)


def count(folder: Path) -> int:
    """Number of photographs in the folders of a folder."""
    return sum(x.is_file() for x in folder.glob('*/*'))


@torch.no_grad()
def features(
    model: nn.Module, folder: Path, size: int
) -> tuple[Tensor, Tensor]:
    """Pooled features, (N, D), float64, and labels, (N,), of a split."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=size * 8 // 7, edge='short'),
        dict(type='CenterCrop', crop_size=size),
        dict(type='PackInputs'),
    ]
    data = CustomDataset(data_root=str(folder), pipeline=pipeline)
    rows, labels = [], []
    for batch in DataLoader(data, 64, collate_fn=pseudo_collate):
        batch = model.data_preprocessor(batch)
        rows.append(model.extract_feat(batch['inputs'])[-1].double())
        labels += [x.gt_label for x in batch['data_samples']]
    return torch.cat(rows), torch.cat(labels)


def probe(model: nn.Module, data: Path, size: int) -> dict[str, float]:
    """Accuracy, in percent, of linear classifiers on frozen features."""
    splits = {
        x: features(model, data / x, size) for x in ('train', 'val', 'test')
    }
    rows, labels = splits['train']
    mean, std = rows.mean(dim=0), rows.std(dim=0) + 1e-8
    scores = {}
    layer = nn.Linear(rows.shape[1], int(labels.max()) + 1).double()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    for penalty in PENALTIES:
        fit(layer, (rows - mean) / std, labels, penalty)
        scores[penalty] = {
            name: accuracy(layer, (x - mean) / std, y)
            for name, (x, y) in splits.items()
        }
    penalty = max(scores, key=lambda x: scores[x]['val'])
    return dict(scores[penalty], penalty=penalty)


def fit(
    layer: nn.Linear, rows: Tensor, labels: Tensor, penalty: float
) -> None:
    """Logistic regression with an L2 penalty, by L-BFGS in float64."""
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=100, line_search_fn='strong_wolfe'
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(rows), labels)
        loss = loss + penalty * layer.weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)


@torch.no_grad()
def accuracy(layer: nn.Linear, rows: Tensor, labels: Tensor) -> float:
    """Share of labels that a classifier finds, in percent."""
    right = layer(rows).argmax(dim=1) == labels
    return 100 * float(right.double().mean())


def main() -> None:
    """Distil with several seeds, probe, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', type=Path, help='folder of train, val, test')
    parser.add_argument('--teacher', choices=TEACHERS, default='mobilenet_v2')
    parser.add_argument('--teacher-ckpt', type=Path, help='none: random')
    parser.add_argument('--losses', choices=LOSSES, default='lshl2')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--epochs', type=int, default=10)
    parser.add_argument('--batch', type=int, default=32)
    parser.add_argument('--size', type=int, default=96)
    parser.add_argument('--lr', type=float, default=2e-3)
    parser.add_argument('--work-dir', type=Path, default='work_dirs/found')
    parser.add_argument('--out', type=Path, help='JSON; is added to')
    args = parser.parse_args()
    torch.set_num_threads(1)
    init_default_scope('mmpretrain')
    args.work_dir.mkdir(parents=True, exist_ok=True)
    backbone = TEACHERS[args.teacher]['backbone']
    if args.teacher_ckpt is None:
        args.teacher_ckpt = args.work_dir / f'{args.teacher}.pth'
        torch.save(build(backbone).state_dict(), args.teacher_ckpt)
    file = dict(type='Pretrained', checkpoint=str(args.teacher_ckpt))
    teacher = build(dict(backbone, init_cfg=dict(file, prefix='backbone.')))
    results: dict[str, Any] = {'teacher': probe(teacher, args.data, args.size)}
    print('teacher', results['teacher'], flush=True)
    for seed in args.seeds:
        began = time.process_time(), time.time()
        start = probe(build(STUDENT, seed), args.data, args.size)
        out = train(args, seed, args.work_dir / f'seed_{seed}')
        file['checkpoint'] = str(out)
        init_cfg = dict(file, prefix='backbone.')
        student = build(dict(STUDENT, init_cfg=init_cfg))
        results[f'seed {seed}'] = dict(
            random=start, mimicking=probe(student, args.data, args.size)
        )
        print(seed, results[f'seed {seed}'], time.time() - began[1])
    seeds = [v for k, v in results.items() if k != 'teacher']
    summary = {}
    for arm in ('random', 'mimicking'):
        values = [x[arm]['test'] for x in seeds]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        summary[arm] = dict(mean=statistics.mean(values), deviation=spread)
    low, high = summary['random']['mean'], results['teacher']['test']
    closed = None  # where a random student is no worse than the teacher
    if high > low:
        closed = (summary['mimicking']['mean'] - low) / (high - low)
    print(summary, f'share of the gap that is closed: {closed}', flush=True)
    if args.out:
        record = (
            json.loads(args.out.read_text('utf-8'))
            if args.out.exists()
            else {}
        )
        record[f'{args.teacher} {args.losses}'] = dict(
            results,
            summary=summary,
            closed=closed,
            epochs=args.epochs,
            batch=args.batch,
            size=args.size,
            lr=args.lr,
            photographs=count(args.data / 'train'),
            processor=processor(),
            torch=torch.__version__,
            python=platform.python_version(),
            commit=commit(REPO),
        )
        args.out.write_text(json.dumps(record, indent=1) + '\n', 'utf-8')


if __name__ == '__main__':
    main()
