"""What mmcv's collect_env asks for."""

import torch
import torchvision


def get_compiler_version() -> str:
    """What mmcv's operators were compiled with: nothing."""
    return f'none (operators of torchvision {torchvision.__version__})'


def get_compiling_cuda_version() -> str:
    """The CUDA that the operators run on, or 'not available'."""
    return torch.version.cuda or 'not available'
