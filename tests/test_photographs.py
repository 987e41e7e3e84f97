"""Photographs, from small archives in the format of their sources."""

import io
import json
import runpy
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmpretrain.datasets import CustomDataset, MultiLabelDataset

from lshfm_mm.datasets.photographs import SOURCES, get_photographs
from lshfm_mm.datasets.photographs import sources as known
from lshfm_mm.datasets.photographs.get import digest
from lshfm_mm.errors import ConfigError

REPO = Path(__file__).parent.parent
SPLITS = ('train', 'val', 'test')


def jpeg(width, height, grey=(50, 200)):
    """The left half of one grey, the right half of another: bytes."""
    image = np.empty((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = grey
    return cv2.imencode('.jpg', image)[1].tobytes()


def voc(*boxes, width=640, height=480):
    """PASCAL VOC's XML of an image; class, left, top, right, bottom."""
    corners = ('xmin', 'ymin', 'xmax', 'ymax')
    objects = ''.join(
        f'<object><name>{name}</name><bndbox>'
        + ''.join(f'<{k}>{v}</{k}>' for k, v in zip(corners, box, strict=True))
        + '</bndbox></object>'
        for name, *box in boxes
    )
    size = f'<width>{width}</width><height>{height}</height>'
    return f'<annotation><size>{size}</size>{objects}</annotation>'


def bccd():
    """Five images; number 38 is one that is left out of training."""
    names = [f'BloodImage_{x:05d}' for x in (0, 1, 2, 38, 39)]
    boxes = {
        names[1]: [
            ('WBC', 68, 315, 286, 480),
            ('RBC', 346, 361, 700, 454),  # beyond the right border
            ('Platelets', 10, 10, 10, 30),  # without area
        ],
    }
    files = {'BCCD/ImageSets/Main/trainval.txt': '', 'LICENSE': 'MIT'}
    lists = dict(train=[1, 3], val=[0, 4], test=[2])
    for split, numbers in lists.items():
        listed = '\n'.join(names[x] for x in numbers)
        files[f'BCCD/ImageSets/Main/{split}.txt'] = f'{listed}\n'
    for name in names:
        files[f'BCCD/JPEGImages/{name}.jpg'] = jpeg(640, 480)
        xml = voc(*boxes.get(name, [('RBC', 2, 4, 6, 12)]))
        files[f'BCCD/Annotations/{name}.xml'] = xml
    return {f'BCCD_Dataset-1/{k}': v for k, v in files.items()}


def aquarium():
    """Two training images, one of which is left out; one of the others."""
    files = {'README.dataset.txt': 'CC BY 4.0'}
    for path, size, text in (
        (
            'train/{}/IMG_2_jpeg_jpg.rf.0f',
            (768, 1024),
            '4 0.5 0.25 0.25 0.5\n0 0.1 0.5 0.4 0.1\n',
        ),
        ('train/{}/IMG_8403_jpeg_jpg.rf.1a', (768, 1024), '1 .5 .5 .1 .1'),
        ('valid/{}/IMG_3_jpg.rf.ab', (1024, 512), '2 .5 .5 1 1\n2 .5 .5 0 0'),
        ('test/{}/IMG_1_jpeg_jpg.rf.c3', (200, 100), ''),
    ):
        files[f'{path.format("images")}.jpg'] = jpeg(*size)
        files[f'{path.format("labels")}.txt'] = text
    return {f'water-1/dataset/{k}': v for k, v in files.items()}


def clothing():
    """Two classes; a training image is left out, a file is no class."""
    out = 't-shirt/0add1694-17d0-46ec-a9fc-900da252af41'
    files = {'LICENSE': 'CC0', 'train/Thumbs.db': ''}
    for name in ('train/hat/b', 'train/hat/a', 'train/t-shirt/c'):
        files[f'{name}.jpg'] = jpeg(400, 533)
    files[f'train/{out}.jpg'] = jpeg(400, 533)
    files['validation/t-shirt/d.jpg'] = jpeg(533, 400)
    files['test/hat/e.jpg'] = jpeg(100, 120)
    return {f'small-1/{k}': v for k, v in files.items()}


MADE = dict(aquarium=aquarium, bccd=bccd, clothing=clothing)


def archive(files):
    """A zip archive: bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves ``content``, by path; counts what it is asked for."""

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.content, self.asked, self.cut = {}, [], False
        self.url = f'http://127.0.0.1:{self.server_port}'


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.content.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // (1 + self.server.cut)])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """In the place of GitHub, with small archives that are as published."""
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(known, 'GITHUB', f'{server.url}/{{}}/{{}}.zip')
    for name, make in MADE.items():
        source = SOURCES[name]
        packed = archive(make())
        folder = tmp_path / 'sources' / name
        with zipfile.ZipFile(io.BytesIO(packed)) as file:
            file.extractall(folder)
        (marker,) = folder.rglob(source.parts[0])
        source = source._replace(sha256=digest(marker.parent, source.parts))
        monkeypatch.setitem(SOURCES, name, source)
        server.content[source.url.removeprefix(server.url)] = packed
    yield server
    server.shutdown()
    server.server_close()


def read(path):
    return json.loads(path.read_text('utf-8'))


def halves(path):
    """Size of an image, and the mean of its left and right half."""
    image = cv2.imread(str(path))
    height, width, _ = image.shape
    left, right = image[:, : width // 2 - 2], image[:, width // 2 + 2 :]
    return (width, height), (round(left.mean()), round(right.mean()))


def test_bccd_is_what_its_xml_says(server, tmp_path):
    out = tmp_path / 'data/bccd'
    notice = get_photographs('bccd', str(out))
    assert {x.name for x in out.iterdir()} == {
        *('NOTICE', 'LICENSE', 'images'),
        *(f'{x}.json' for x in SPLITS),
    }
    assert (out / 'NOTICE').read_text() == notice
    assert (
        'MIT' in notice and server.url in notice and 'not what' not in notice
    )
    train, val, test = (read(out / f'{x}.json') for x in SPLITS)
    assert train['categories'] == [
        dict(id=i, name=x, supercategory='none')
        for i, x in enumerate(('RBC', 'WBC', 'Platelets'), 1)
    ]
    # Numbered through all names, as they are sorted.
    assert [x['id'] for x in train['images']] == [2]
    assert [x['id'] for x in val['images']] == [1, 5]
    assert [x['id'] for x in test['images']] == [3]
    first, second = train['annotations']
    assert first == dict(
        id=1,
        image_id=2,
        category_id=2,
        bbox=[34.0, 157.5, 109.0, 82.5],
        area=109 * 82.5,
        iscrowd=0,
    )
    assert second['bbox'] == [173, 180.5, 320 - 173, 46.5]
    assert val['annotations'][1]['id'] == 2
    names = [x['file_name'] for s in (train, val, test) for x in s['images']]
    assert {x.name for x in (out / 'images').iterdir()} == {*names}
    image = out / 'images/BloodImage_00001.jpg'
    assert halves(image) == ((320, 240), (50, 200))
    info = train['images'][0]
    assert (info['width'], info['height']) == (320, 240)
    dataset = CocoDataset(
        ann_file=str(out / 'train.json'),
        data_prefix=dict(img=str(out / 'images')),
        metainfo=dict(classes=('RBC', 'WBC', 'Platelets')),
    )
    labels = [x['bbox_label'] for x in dataset[0]['instances']]
    assert labels == [1, 0]


def test_aquarium_is_what_its_lists_say(server, tmp_path):
    out = tmp_path / 'aquarium'
    assert 'CC BY 4.0' in get_photographs('aquarium', str(out))
    assert (out / 'README.dataset.txt').read_text() == 'CC BY 4.0'
    train, val, test = (read(out / f'{x}.json') for x in SPLITS)
    # First test, then training with what is left out of it.
    assert [x['id'] for x in test['images']] == [1]
    assert [x['id'] for x in train['images']] == [2]
    assert [x['id'] for x in val['images']] == [4]
    assert train['images'][0]['file_name'] == 'IMG_2.jpg'
    shark, fish = train['annotations']
    assert shark['category_id'] == 5 and fish['category_id'] == 1
    assert shark['bbox'] == [240 * 0.375, 0, 240 * 0.25, 160]
    # From -0.1 to 0.3 of the width, of which 0 to 0.3 are inside.
    assert fish['bbox'] == pytest.approx([0, 320 * 0.45, 240 * 0.3, 32])
    assert [x['bbox'] for x in val['annotations']] == [[0, 0, 320, 160]]
    assert halves(out / 'images/IMG_3.jpg') == ((320, 160), (50, 200))
    # A small one is not enlarged.
    assert halves(out / 'images/IMG_1.jpg')[0] == (200, 100)
    found = [
        MultiLabelDataset(
            ann_file=str(out / f'multilabel_{x}.json'), data_prefix=str(out)
        )
        for x in SPLITS
    ]
    assert [x[0]['gt_label'] for x in found] == [[0, 4], [2], []]
    assert found[0].CLASSES[4] == 'shark'
    assert Path(found[0][0]['img_path']) == out / 'images/IMG_2.jpg'


def test_clothing_is_in_its_folders(server, tmp_path):
    out = tmp_path / 'clothing'
    assert 'CC0' in get_photographs('clothing', str(out))
    lists = {x: (out / f'{x}.txt').read_text().splitlines() for x in SPLITS}
    assert lists == dict(
        train=['hat/a.jpg 0', 'hat/b.jpg 0', 't-shirt/c.jpg 1'],
        val=['t-shirt/d.jpg 1'],
        test=['hat/e.jpg 0'],
    )
    assert len([*out.rglob('*.jpg')]) == 5
    assert halves(out / 'train/hat/a.jpg') == ((128, 171), (50, 200))
    assert halves(out / 'val/t-shirt/d.jpg')[0] == (171, 128)
    assert halves(out / 'test/hat/e.jpg')[0] == (100, 120)
    assert (out / 'LICENSE').read_text() == 'CC0'
    dataset = CustomDataset(
        ann_file='train.txt',
        data_root=str(out),
        data_prefix='train',
        classes=str(out / 'classes.txt'),
    )
    assert dataset.CLASSES == ('hat', 't-shirt')
    assert [x['gt_label'] for x in dataset] == [0, 0, 1]
    assert Path(dataset[2]['img_path']).is_file()


def tool(monkeypatch, *arguments):
    """Run the tool here, so that it sees what is patched."""
    path = REPO / 'tools/get_photographs.py'
    monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
    try:
        runpy.run_path(str(path), run_name='__main__')
    except SystemExit as end:
        return end.code
    return 0


def test_what_is_there_is_not_fetched_again(
    server, tmp_path, monkeypatch, capfd
):
    out = tmp_path / 'bccd'
    out.mkdir()  # an empty folder is none
    assert tool(monkeypatch, 'bccd', out) == 0
    first = capfd.readouterr()
    assert 'Licence: MIT' in first.out and 'train: 100%' in first.err
    assert tool(monkeypatch, 'bccd', out) == 0
    assert capfd.readouterr().out == first.out
    assert len(server.asked) == 1
    answer = tool(monkeypatch, 'clothing', out)
    assert answer.startswith('error: out: ') and 'something else' in answer
    answer = tool(monkeypatch, 'clothing', out / 'LICENSE/clothing')
    assert answer.startswith('error: out: cannot write to ')


@pytest.mark.parametrize('kind', ['folder', 'archive', 'URL'])
def test_another_source_is_named(kind, server, tmp_path):
    files = clothing()
    files['small-1/train/hat/new.jpg'] = jpeg(200, 200)
    source = tmp_path / 'mine.zip'
    source.write_bytes(archive(files))
    if kind == 'folder':
        with zipfile.ZipFile(source) as file:
            file.extractall(tmp_path / 'mine')
        source = tmp_path / 'mine'
    elif kind == 'URL':
        server.content['/mine.zip'] = source.read_bytes()
        source = f'{server.url}/mine.zip'
    out = tmp_path / 'out'
    notice = get_photographs('clothing', str(out), str(source))
    url = SOURCES['clothing'].url
    assert notice.endswith(
        f'Taken from {source}, which is not what {url} was\n'
    )
    assert (out / 'train/hat/new.jpg').is_file()
    # What is published is known by its content, wherever it lies.
    source = tmp_path / 'sources/clothing'
    notice = get_photographs('clothing', str(tmp_path / 'b'), str(source))
    assert notice.endswith(f'Taken from {source}\n')


def test_an_interrupted_run_leaves_no_set(server, tmp_path, monkeypatch):
    out = tmp_path / 'data/clothing'
    source = SOURCES['clothing']
    there = []

    def interrupt(root, result):
        source.convert(root, result)
        there.append(out.exists())  # what SIGKILL would leave
        raise KeyboardInterrupt

    stopped = source._replace(convert=interrupt)
    monkeypatch.setitem(SOURCES, 'clothing', stopped)
    with pytest.raises(KeyboardInterrupt):
        get_photographs('clothing', str(out))
    assert there == [False]
    assert [*out.parent.iterdir()] == []
    monkeypatch.setitem(SOURCES, 'clothing', source)
    get_photographs('clothing', str(out))
    assert len([*out.rglob('*.jpg')]) == 5


def test_an_unknown_set_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"^name.*aquarium.*bccd.*'bcd'"):
        get_photographs('bcd', str(tmp_path / 'out'))
    assert [*tmp_path.iterdir()] == []


def changed(server):
    """One byte of a label."""
    files = aquarium()
    files['water-1/dataset/train/labels/IMG_2_jpeg_jpg.rf.0f.txt'] = '1'
    return archive(files)


def test_nothing_is_left_of_what_went_wrong(server, tmp_path, monkeypatch):
    source = SOURCES['aquarium']
    path = source.url.removeprefix(server.url)
    whole = server.content[path]

    def message(given=None):
        with pytest.raises(ConfigError) as error:
            get_photographs('aquarium', str(tmp_path / 'out/aquarium'), given)
        assert [*(tmp_path / 'out').iterdir()] == []
        assert '\n' not in str(error.value)
        return str(error.value)

    server.content[path] = changed(server)
    assert 'is not what it was when this was written' in message()
    # The same content is read where one insists on it, and is wrong.
    bad = tmp_path / 'bad.zip'
    bad.write_bytes(server.content[path])
    assert f'{bad} cannot be read as aquarium (ValueError' in message(str(bad))
    server.content[path], server.cut = whole, True
    assert 'no whole zip archive' in message()
    del server.content[path]
    assert f'cannot download {source.url} (HTTP Error 404' in message()
    assert 'no folder and no whole zip archive' in message('nowhere.zip')
    assert 'no folder with train, valid, test' in message(
        str(tmp_path / 'sources/clothing')
    )
