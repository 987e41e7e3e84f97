"""Clothing: one garment to a photograph, a folder to a class."""

from pathlib import Path

from tqdm import tqdm

from .images import shrink

SIDE = 128  # pixels of the shorter side
FOLDERS = {'train': 'train', 'val': 'validation', 'test': 'test'}
# Nearly equal to photographs of validation or test.
LEFT_OUT = {
    'shirt/5ddd23ad-e060-4e8a-a5ef-f7d3179567ff',
    'shirt/8cc58313-b02b-459c-a280-682bc9711b91',
    'shirt/a934396b-3a7e-468d-bbc8-38290dd06507',
    't-shirt/0add1694-17d0-46ec-a9fc-900da252af41',
    't-shirt/0dbc39f0-2048-4580-ad8b-a2540265a414',
    't-shirt/2bc86809-3b2e-484b-b623-4c5ca81cc606',
    't-shirt/4617d065-8091-438c-9c7c-e6c53896aab0',
    't-shirt/c40c81ed-b4df-43e9-adba-5b0f6e71228f',
    't-shirt/c9bfd1da-5e50-473d-b69f-0e606cded8dd',
}


def convert_clothing(source: Path, out: Path) -> None:
    """Write ``{train,val,test}/CLASS/``, a list of each, ``classes.txt``.

    A line of a list is a path in the split's folder and a class from 0 on.
    """
    folders = (source / 'train').iterdir()
    classes = sorted(x.name for x in folders if x.is_dir())
    (out / 'classes.txt').write_text('\n'.join(classes) + '\n', 'utf-8')
    for split, folder in FOLDERS.items():
        lines = []
        paths = sorted((source / folder).glob('*/*.jpg'))
        for path in tqdm(paths, desc=split, unit='image'):
            kind = path.parent.name
            if split == 'train' and f'{kind}/{path.stem}' in LEFT_OUT:
                continue
            target = out / split / kind / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shrink(path, target, SIDE, min)
            lines.append(f'{kind}/{path.name} {classes.index(kind)}\n')
        (out / f'{split}.txt').write_text(''.join(lines), 'utf-8')
