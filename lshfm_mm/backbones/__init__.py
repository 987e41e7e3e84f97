"""Networks that mmpretrain has not."""

from . import cifar, necks

__all__ = ['cifar', 'necks']
