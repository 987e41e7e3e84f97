"""Data sets for multi-label classification, in mmpretrain's registry.

mmpretrain is an extra, so the package does not import this module. A config
does, by ``lshfm_mm.datasets.coco_multi_label`` among its ``custom_imports``.
"""

import os
from pathlib import Path
from typing import Any

from mmpretrain.datasets import MultiLabelDataset
from mmpretrain.registry import DATASETS
from pycocotools.coco import COCO

from ..errors import ConfigError
from .unused import Unused


@DATASETS.register_module()
class CocoMultiLabel(MultiLabelDataset):
    """The classes that are present in each image of COCO's instances.

    The protocol is that of ML-GCN (CVPR 2019), ASL (ICCV 2021) and the
    paper's authors. Every annotation counts, crowds too: a crowd of persons
    is no single box, but persons are in the image. Images without any
    annotation are left out, in training and in the evaluation: of COCO 2014
    remain 82,081 of 82,783 and 40,137 of 40,504.

    Classes are in the ascending order of their category ids, 80 in COCO.

    Args:
        ann_file (str): A JSON file of instances, relative to ``data_root``.
        filter_cfg (dict, optional): ``dict(filter_empty_gt=False)`` keeps
            the images without annotations. Defaults to leaving them out.
        kwargs: Arguments of mmpretrain's ``MultiLabelDataset``.

    Raises:
        ConfigError: If the file is absent or is none of instances, an
            annotation has an unknown category, or no image remains.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read images: ``img_path``, and ``gt_label``, ascending classes."""
        if not Path(self.ann_file).is_file():
            raise ConfigError(
                f'ann_file: no such file: {self.ann_file}; set data_root'
            )
        coco = COCO(self.ann_file)
        for key in ('images', 'annotations', 'categories'):
            if key not in coco.dataset:
                raise ConfigError(
                    f'ann_file: {self.ann_file} has no {key!r}; give a file '
                    f'of instances, as instances_train2014.json'
                )
        names = {key: coco.cats[key]['name'] for key in sorted(coco.cats)}
        classes = self._metainfo.setdefault('classes', tuple(names.values()))
        labels = {
            key: classes.index(name)
            for key, name in names.items()
            if name in classes
        }
        unused = Unused()
        for item in coco.dataset['annotations']:
            if item['image_id'] not in coco.imgs:
                unused.add('image_id is not in the file', item['image_id'])
            if item['category_id'] not in labels:
                raise ConfigError(
                    f'ann_file: annotation {item["id"]} of {self.ann_file} '
                    f'has the category {item["category_id"]!r}, none of the '
                    f'{len(labels)} classes; mend the file or metainfo'
                )
        total = len(coco.dataset['annotations'])
        path = Path(self.ann_file)
        unused.tell('ann_file', path, total, 'annotations', 'mend the file')
        return [
            {
                'img_path': os.path.join(self.img_prefix, image['file_name']),
                'gt_label': sorted(
                    {labels[x['category_id']] for x in coco.imgToAnns[key]}
                ),
            }
            for key, image in coco.imgs.items()
        ]

    def filter_data(self) -> list[dict[str, Any]]:
        """Leave out images without annotations, unless they shall stay."""
        remaining = self.data_list
        if (self.filter_cfg or {}).get('filter_empty_gt', True):
            remaining = [x for x in remaining if x['gt_label']]
        if not remaining:
            raise ConfigError(
                f'ann_file: {self.ann_file} has {len(self.data_list)} images '
                f'and none with an annotation; give another file'
            )
        return remaining
