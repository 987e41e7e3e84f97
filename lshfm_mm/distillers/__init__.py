"""What is compared: taps, levels, weights of samples, losses."""

from .lshfm_distiller import LSHFMDistiller

__all__ = ['LSHFMDistiller']
