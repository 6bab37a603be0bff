"""One split of a WebDataset set: its tars mapped, the annotations of its kind read, its pictures given as they are.

Whatever is wrong with a sample is told with its tar and its key.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...errors import DataError
from .. import storage
from ..shard import IMAGE_EXTENSIONS
from ..tar import TarReader
from . import texts
from .base import Association, Captions, EvalSplit, Instance
from .group_fields import groups_of
from .vectors import read_vector, stacked

MAX_IMAGE = 256 << 20  # bytes of one encoded picture


class WebDatasetSplit(EvalSplit):
    """One split of a set: annotations in memory, pictures mapped."""

    def __init__(self, folder: str, name: str, kind: str, classes: int) -> None:
        self.name, self.where = name, f"{folder}: split {name!r}"
        self._folder, self._classes = folder, classes
        self._tars = [TarReader(path).require_whole() for path in tar_paths(folder, name)]
        self.keys = []
        self._spans: list[tuple[int, int, int]] = []  # tar, offset, size of each image
        getattr(self, f"_read_{kind}")()
        if len(set(self.keys)) < len(self.keys):
            twice, _ = Counter(self.keys).most_common(1)[0]
            raise DataError(f"{self.where}: two samples have the key {twice!r}")

    def image(self, index: int) -> bytes:
        tar, offset, size = self._spans[index]
        if size > MAX_IMAGE:
            raise DataError(f"{self.where}: picture {self.keys[index]} has {size:,} bytes; {MAX_IMAGE:,} are allowed")
        return self._tars[tar].view()[offset : offset + size].tobytes()

    def _members(self, *extensions: str) -> Iterator[Any]:
        """``(where, bytes of each member or None)`` of every sample with an image; fills keys and spans."""
        for number, tar in enumerate(self._tars):
            images, found = tar.spans(*IMAGE_EXTENSIONS), [tar.spans(extension) for extension in extensions]
            view = memoryview(tar.view().data)
            for key in tar.keys:
                where = f"{tar.path}: sample {key}"
                if key not in images:
                    raise DataError(f"{where} has no image member")
                self.keys.append(key)
                self._spans.append((number, *images[key]))
                members = []
                for spans in found:
                    offset, size = spans.get(key, (0, -1))
                    members.append(bytes(view[offset : offset + size]) if size >= 0 else None)
                yield where, *members

    def _read_classification(self) -> None:
        labels, vectors, wheres = [], [], []
        for where, text, vector in self._members("cls", "npy"):
            if text is None and vector is None:
                raise DataError(f"{where} has no cls member")
            if text is not None:
                labels.append(_label(text, self._classes, where))
            if vector is not None:
                vectors.append(read_vector(vector, where))
            wheres.append(where)
        for found, member in ((labels, "cls"), (vectors, "npy")):
            if found and len(found) < len(wheres):
                raise DataError(
                    f"{self.where}: {len(found)} of {len(wheres)} samples have a {member} member; all or none must"
                )
        if labels or not wheres:  # FairFace and its like have nothing but metadata
            self.classes = np.asarray(labels, np.int64)
        if vectors:
            self.groups = groups_of(self._folder, stacked(vectors, wheres), self.where)

    def _read_multilabel(self) -> None:
        vectors, wheres = [], []
        for where, vector in self._members("npy"):
            if vector is None:
                raise DataError(f"{where} has no npy member, which holds the labels of a multilabel set")
            vectors.append(read_vector(vector, where))
            wheres.append(where)
        values = stacked(vectors, wheres, self._classes)
        odd = np.flatnonzero(((values != 0) & (values != 1)).any(axis=1))
        if len(odd):
            raise DataError(f"{wheres[odd[0]]}: the labels of a multilabel set are 0 and 1")
        self.right = values.astype(bool)

    def _read_retrieval(self) -> None:
        found: list[str] = []
        owner: list[int] = []
        for row, (where, text) in enumerate(self._members("txt")):
            if text is None:
                raise DataError(f"{where} has no txt member, which holds the captions of a retrieval set")
            mine = texts.captions_of(text, where)
            found += mine
            owner += [row] * len(mine)
        self.captions = Captions(tuple(found), np.asarray(owner, np.int64))

    def _read_compositional(self) -> None:
        instances = []
        for number, tar in enumerate(self._tars):
            for place, key in enumerate(tar.keys):
                where, members = f"{tar.path}: sample {key}", tar.places(place)
                if "txt" not in members:
                    raise DataError(f"{where} has no txt member, which holds the captions of a compositional set")
                offset, size = members["txt"]
                captions = texts.captions_of(tar.view()[offset : offset + size].tobytes(), where)
                images = _pictures_of(members, where)
                if len(captions) < max(2, len(images)):
                    raise DataError(f"{where} has {len(images)} images and only {len(captions)} captions")
                first = len(self.keys)
                self.keys += [key] if len(images) == 1 else [f"{key}/{image}" for image in range(len(images))]
                self._spans += [(number, *span) for span in images]
                instances.append(Instance(key, tuple(range(first, len(self.keys))), tuple(captions)))
        self.instances = instances

    def _read_association(self) -> None:
        for _ in self._members():
            pass
        path = storage.join(self._folder, self.name, texts.ASSOCIATIONS)
        text = texts.read_text(path)
        if text is None:
            raise DataError(f"{path} is missing; it holds the cues of an association set")
        number = {key: row for row, key in enumerate(self.keys)}
        lines = enumerate(text.rstrip("\n").split("\n") if text.strip() else [], 1)
        self.associations = [_association(line, number, f"{path}, line {count}") for count, line in lines]


def _pictures_of(members: dict[str, tuple[int, int]], where: str) -> list[tuple[int, int]]:
    """Spans of ``0.jpg``, ``1.jpg`` ..., or of the one ``jpg``."""
    found: dict[int, tuple[int, int]] = {}
    for extension, span in members.items():
        place, dot, form = extension.rpartition(".")
        if form in IMAGE_EXTENSIONS and (not dot or (place.isascii() and place.isdigit() and len(place) < 4)):
            if (int(place) if dot else 0) in found:
                raise DataError(f"{where} has two images for the place {place or 0}")
            found[int(place) if dot else 0] = span
    if sorted(found) != list(range(len(found))) or not found:
        raise DataError(
            f"{where} must have the images 0 to {max(len(found) - 1, 0)}, and has {sorted(found) or 'none'}"
        )
    return [found[place] for place in range(len(found))]


def _association(line: str, number: dict[str, int], where: str) -> Association:
    try:
        value = json.loads(line)
        key, cue, candidates, right = (value[name] for name in ("key", "cue", "candidates", "right"))
        lists = [*candidates, *right]
        if not all(isinstance(one, str) for one in (key, cue, *lists)) or not cue.strip() or not right:
            raise TypeError("key and cue are texts; candidates and right are lists of picture keys")
        if lost := [one for one in lists if one not in number]:
            raise TypeError(f"there is no picture {lost[0]!r}")
        if len(set(candidates)) < len(candidates) or len(set(right)) < len(right) or not set(right) <= set(candidates):
            raise TypeError("right must be some of candidates, each of them once")
    except KeyError as error:
        raise DataError(f"{where}: {error.args[0]!r} is missing") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{where}: {error}") from error
    return Association(key, cue, tuple(number[one] for one in candidates), tuple(number[one] for one in right))


def _label(text: bytes, classes: int, where: str) -> int:
    try:
        label = int(text) if len(text) <= 20 else int("")
    except ValueError as error:
        raise DataError(f"{where}: label {text[:20]!r} is not an integer") from error
    if not 0 <= label < classes:
        raise DataError(f"{where}: label {label} is outside the {classes} names of {texts.CLASSNAMES}")
    return label


def tar_count(folder: str, split: str) -> int:
    """How many tars ``nshards.txt`` counts.

    Raises:
        DataError: there is no such file, or something else in it.
    """
    path = storage.join(folder, split, texts.NSHARDS)
    text = texts.read_text(path)
    if text is None:
        raise DataError(f"{path} is missing; the evaluation set has no split {split!r}")
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise DataError(f"{path} must hold one integer, not {text[:20]!r}")
    return int(text)


def tar_paths(folder: str, split: str) -> list[str]:
    """Paths of a split's tars, in order.

    Raises:
        DataError: one of them is missing; whatever number the file claims, it takes no longer than what is there.
    """
    count, found = tar_count(folder, split), []
    for number in range(count):
        tar = storage.join(folder, split, f"{number}.tar")
        if not storage.exists(tar):
            path = storage.join(folder, split, texts.NSHARDS)
            raise DataError(f"{tar} is missing, although {path} counts {count} tars")
        found.append(tar)
    return found
