"""Setup of lshfm_mm; the tested versions are in requirements.lock."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

here = Path(__file__).resolve().parent
version: dict[str, str] = {}
exec((here / 'lshfm_mm' / 'version.py').read_text('utf-8'), version)
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
    packages=['lshfm_mm'],
    cmdclass={'build_py': BuildPy},
    # .mim links to configs/ and tools/; packages get copies.
    package_data={
        'lshfm_mm': ['report.html']
        + [f'.mim/**/*.{kind}' for kind in ('py', 'sh', 'yml', 'md')]
    },
    python_requires='>=3.10,<3.13',
    install_requires=[
        'torch>=2.6',
        'torchvision',
        'filelock',
        'mmengine>=0.10.3,<1',
        'mmcv>=2.0.0,<=2.1.0',
        'mmdet>=3.3,<3.4',
        'mmrazor==1.0.0',
        'setuptools<81',  # MMEngine imports pkg_resources
        'joblib',  # MMRazor imports it and does not say so
        'pycocotools',
        'opencv-python',
        'matplotlib',
        'jinja2',
        'numpy',
        'tqdm',
    ],
    extras_require={
        'cls': ['mmpretrain>=1.2,<1.3'],
        'dev': [
            *('pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'mypy'),
            *('onnx', 'onnxscript', 'onnxruntime'),
        ],
        'docs': ['sphinx', 'myst-parser', 'furo'],
    },
)
