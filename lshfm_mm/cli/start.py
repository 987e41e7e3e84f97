"""Where a tool begins, and how its errors end it."""

import signal
import sys
import warnings
from collections.abc import Callable
from importlib import import_module

from ..errors import ConfigError, NonFiniteError

# A part of an error of upstream's that names no field -> our line.
UPSTREAM = {
    '!buf.empty()': 'image: one is an empty file; find it with "find FOLDER '
    '-size 0" in the folder of the images, and make it again',  # OpenCV
    'selected index k out of range': 'model: a topk takes more than there '
    'are; in a DETR test_cfg.max_per_img must be at most num_queries x '
    "num_classes, and num_queries at most the locations of the encoder's maps",
    'Default process group has not been initialized': 'norm_cfg.type: '
    "mmcv's MMSyncBN needs the processes of a --launcher; write 'SyncBN', "
    'which one process runs as BN',
}


def load_stack() -> None:
    """Import the stack, register all components, and patch MMEngine."""
    # Of setuptools, whenever MMEngine finds a config of a package.
    warnings.filterwarnings(
        'ignore', 'pkg_resources is deprecated', UserWarning
    )
    import_module('lshfm_mm.components')
    from ..compat.mmengine import patch_device, patch_loaders
    from ..compat.mmrazor import patch_generators
    from ..compat.mmrazor_configs import patch_config_reading

    patch_loaders()
    patch_device()
    patch_config_reading()
    patch_generators()


def run_main(main: Callable[[], None], stopped: str = '') -> None:
    """Run a tool; make one line of its errors.

    Args:
        main (Callable): The tool.
        stopped (str): What it says when SIGTERM ends it, after it has ended
            its children. Defaults to the signal ending it at once.
    """
    former = None
    if stopped:
        former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(stopped))
    try:
        main()
    except (ConfigError, NonFiniteError) as error:
        sys.exit(f'error: {error}')
    except Exception as error:
        for part, line in UPSTREAM.items():
            if part in str(error):
                sys.exit(f'error: {line}')
        raise
    finally:
        if former is not None:
            signal.signal(signal.SIGTERM, former)
