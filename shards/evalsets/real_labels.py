"""ReaL: all right classes of ImageNet's 50,000 validation pictures, from the copy that timm ships.

Beyer et al., "Are we done with ImageNet?" (arXiv 2006.07159). 3,163 pictures have no right class and count nowhere.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

from ...errors import ConfigError, DataError
from .open import open_evalset
from .write import write_right_classes

PICTURES = 50_000
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")


def real_labels() -> list[list[int]]:
    """Right classes of ``ILSVRC2012_val_00000001`` and on, in the usual order of ImageNet's 1,000 classes.

    Raises:
        ConfigError: timm is not installed, or ships no such labels.
    """
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        raise ConfigError("ReaL's labels come with the package timm (1.0 or later); install it")
    path = Path(found.origin).parent / "data" / "_info" / "imagenet_real_labels.json"
    if not path.exists():
        raise ConfigError(f"{path} is missing; ReaL's labels come with timm 1.0 or later")
    lists: list[list[int]] = json.loads(path.read_bytes())
    if len(lists) != PICTURES:
        raise DataError(f"{path} has {len(lists):,} lists, not {PICTURES:,}")
    return lists


def write_real_labels(folder: str, split: str = "test", in_order: bool = False) -> int:
    """Write ``<split>/labels.json`` of an ImageNet validation set, for the suite `supervised`.

    Args:
        in_order: its pictures are all 50,000 in the order of their official numbers; else these are taken from the
            pictures' names (``ILSVRC2012_val_00000001``).

    Returns:
        How many pictures have a right class.

    Raises:
        DataError: the set has not ImageNet's 1,000 classes, or a picture's number is not known.
    """
    evalset, lists = open_evalset(folder), real_labels()
    if len(evalset.classnames) != 1000:
        raise DataError(f"{folder} has {len(evalset.classnames)} classes; ReaL's labels are for ImageNet's 1,000")
    keys = evalset.split(split).keys
    if in_order:
        if len(keys) != PICTURES:
            raise DataError(f"{folder}: split {split!r} has {len(keys):,} pictures, not all {PICTURES:,}")
        chosen = lists
    else:
        chosen = []
        for key in keys:
            match = _NUMBER.search(key)
            if match is None or not 1 <= int(match[1]) <= PICTURES:
                raise DataError(f"{folder}: picture {key!r} does not tell its number, as ILSVRC2012_val_00000001 does")
            chosen.append(lists[int(match[1]) - 1])
    write_right_classes(folder, split, chosen)
    return sum(bool(some) for some in chosen)
