"""Setup of lshfm_mm; the tested versions are in requirements.lock."""

import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).resolve().parent
version: dict[str, str] = {}
exec((here / 'lshfm_mm' / 'version.py').read_text('utf-8'), version)
stacks = runpy.run_path(str(here / 'lshfm_mm' / 'compat' / 'stacks.py'))
readme = here / 'README.md'


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
    name='lshfm_mm',
    version=version['__version__'],
    description='Distilling knowledge by mimicking features, with LSH, on '
    'the OpenMMLab stack',
    long_description=readme.read_text('utf-8') if readme.is_file() else '',
    long_description_content_type='text/markdown',
    author='The lshfm_mm authors',
    license='Apache-2.0',
    packages=find_packages(include=['lshfm_mm*']),
    cmdclass={'build_py': BuildPy},
    # .mim links to configs/ and tools/; packages get copies.
    package_data={
        'lshfm_mm': ['insight/report.html']
        + [f'.mim/**/*.{kind}' for kind in ('py', 'sh', 'yml', 'md')]
    },
    python_requires=stacks['PYTHON'],
    install_requires=[
        'torch>=2.6',
        'torchvision',
        'filelock',
        'mmrazor==1.0.0',
        'joblib',  # MMRazor imports it and does not say so
        'pycocotools',
        'opencv-python',
        'matplotlib',
        'jinja2',
        'numpy',
        'tqdm',
    ],
    extras_require={
        # One of the two stacks; mmcv comes with lshfm_mm.install_mmcv.
        **{
            name: stack.requirements()
            for name, stack in stacks['STACKS'].items()
        },
        'dev': [
            *('pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'mypy'),
            *('onnx', 'onnxscript', 'onnxruntime'),
        ],
        'docs': ['sphinx', 'myst-parser', 'furo'],
    },
)
