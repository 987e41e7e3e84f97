"""Where a tool begins, and how its errors end it."""

import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module

from ..errors import ConfigError, NonFiniteError

# Of errors of upstream's that name no field: a part of one, a part of the path
# of the file that raises it, and our line.
UPSTREAM = (
    (
        '!buf.empty()',  # of OpenCV
        '',
        'image: one is an empty file; find it with "find FOLDER -size 0" in '
        'the folder of the images, and make it again',
    ),
    (
        'Default process group has not been initialized',
        'mmcv/ops/sync_bn.py',
        "norm_cfg.type: mmcv's MMSyncBN needs the processes of a --launcher; "
        "write 'SyncBN', which one process runs as BN",
    ),
    (
        'selected index k out of range',
        'mmdet/models/dense_heads/detr_head.py',
        'model.test_cfg.max_per_img: is more than the queries give; take at '
        'most num_queries x num_classes, or num_queries where the class loss '
        'is no sigmoid',
    ),
    (
        'selected index k out of range',
        'mmdet/models/detectors/',
        'model.num_queries: is more than the locations of all maps of the '
        'encoder; lower it, or take larger images',
    ),
)


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
        stopped (str): What it says when SIGTERM or Ctrl-C ends it, after it
            has ended its children. Defaults to the signal ending it at once.
    """
    former = None
    if stopped:
        former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(stopped))
    try:
        main()
    except (ConfigError, NonFiniteError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        if not stopped:
            raise
        sys.exit(stopped)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        for part, file, line in UPSTREAM:
            if part in str(error) and any(file in x.filename for x in frames):
                sys.exit(f'error: {line}')
        raise
    finally:
        if former is not None:
            signal.signal(signal.SIGTERM, former)
