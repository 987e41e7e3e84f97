"""Importing this patches MMEngine as our tools do, for tools of others.

A config asks for it, so that files of weights never run code, and a Mac
computes on its CPU::

    custom_imports = dict(
        imports=['lshfm_mm', 'lshfm_mm.compat.patched_mmengine']
    )
"""

from .mmengine import patch_device, patch_loaders

patch_loaders()
patch_device()
