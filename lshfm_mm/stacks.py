"""The two stacks that lshfm_mm runs on, OpenMMLab's and OneDL's."""

from importlib import metadata

ONEDL = {
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmpretrain': 'onedl-mmpretrain',
}


def version(module: str) -> str:
    """Return the version of the distribution that a module is of, or ''.

    Args:
        module (str): Name of a module that is imported by this name.

    Returns:
        str: As its metadata tell, whichever stack it is of.
    """
    for name in (module, ONEDL.get(module, module)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ''
