"""Distillation algorithms: the order of the steps of a batch."""

from .feature_mimic import FeatureMimicDistill
from .roi_mimic import RoIMimicDistill

__all__ = ['FeatureMimicDistill', 'RoIMimicDistill']
