"""What pyproject.toml cannot say; the tested versions: requirements.lock."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

here = Path(__file__).resolve().parent
# The doctor reads the same file, where nothing is installed yet.
stacks = runpy.run_path(str(here / 'lshfm_mm' / 'compat' / 'stacks.py'))


class BuildPy(build_py):
    """Copies what .mim links to; on Windows git makes text files of links."""

    def run(self) -> None:
        super().run()
        for name in ('configs', 'tools'):
            if not (here / 'lshfm_mm/.mim' / name).is_dir():
                shutil.copytree(
                    here / name,
                    Path(self.build_lib, 'lshfm_mm/.mim', name),
                    ignore=shutil.ignore_patterns('__pycache__'),
                    dirs_exist_ok=True,
                )


setup(
    cmdclass={'build_py': BuildPy},
    python_requires=stacks['PYTHON'],
    extras_require={
        # One of the two stacks; mmcv comes with install_mmcv.
        **{
            name: stack.requirements()
            for name, stack in stacks['STACKS'].items()
        },
        'dev': [
            *('pytest', 'pytest-cov', 'pytest-xdist', 'hypothesis'),
            *('ruff', 'mypy', 'onnx', 'onnxscript', 'onnxruntime'),
        ],
        'docs': ['sphinx', 'myst-parser', 'furo'],
        # What configs of some families import.
        'families': [
            *('albumentations<1.4', 'timm', 'scikit-image', 'scikit-learn'),
            'instaboostfast',
        ],
    },
)
