"""Trainings that tests run in one process and in two, and compare."""

import os
from pathlib import Path

import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.optim.optimizer import register_optimizer_step_pre_hook


class Witness(Hook):
    """Writes down the losses of each iteration."""

    def __init__(self):
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.losses.append({k: float(v) for k, v in outputs.items()})


class Spoil(Hook):
    """Makes the LSH loss of this process NaN in one iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        loss = runner.model.module.distiller.distill_losses.loss_roi_lsh
        loss.bias.fill_(torch.nan if runner.iter == self.iteration else 0)


def train(cfg):
    """Train; what each iteration and step saw, and what is left."""
    runner = Runner.from_cfg(cfg)
    witness, gradients = Witness(), []
    runner.register_hook(witness, priority='LOWEST')
    wrapped = is_model_wrapper(runner.model)
    model = runner.model.module if wrapped else runner.model

    def at_step(optimizer, args, kwargs):
        gradients.append(
            {
                name: None if x.grad is None else x.grad.clone()
                for name, x in model.named_parameters()
            }
        )

    handle = register_optimizer_step_pre_hook(at_step)
    runner.train()
    handle.remove()
    return dict(
        wrapped=wrapped,
        losses=witness.losses,
        gradients=gradients,
        state={k: v.clone() for k, v in model.state_dict().items()},
        angles=[
            float(x)
            for x in runner.message_hub.log_scalars['train/roi.angle'].data[0]
        ]
        if 'train/roi.angle' in runner.message_hub.log_scalars
        else [],
        skipped=runner.message_hub.get_info('nonfinite_skipped', 0),
    )


def main(folder, rank, backend):
    """Be one of two processes; train from each config in turn."""
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    if backend == 'nccl':
        torch.cuda.set_device(rank)
    meeting = Path(folder, 'meeting').as_uri()
    torch.distributed.init_process_group(
        backend, meeting, rank=rank, world_size=2
    )
    register_all_modules(init_default_scope=True)
    for path in sorted(Path(folder).glob('*.py')):
        cfg = Config.fromfile(path)
        cfg.launcher = 'pytorch'
        cfg.model_wrapper_cfg = dict(device_ids=None, broadcast_buffers=False)
        cfg.merge_from_dict(cfg.get(f'of_rank_{rank}') or {})
        torch.save(train(cfg), f'{folder}/{path.stem}_{rank}.pth')
    torch.distributed.destroy_process_group()
