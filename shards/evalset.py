"""Evaluation sets: the WebDataset folder layout that CLIP_benchmark reads, written and read without a network.

A set is a folder: ``classnames.txt``, ``zeroshot_classification_templates.txt``, optionally ``dataset_type.txt``
(absent = classification), and per split ``nshards.txt`` and ``0.tar`` ... ``{n-1}.tar`` whose samples hold an image
(webp, png, jpg, jpeg) and a ``cls`` (ASCII integer). Opening reads the texts; a split maps its tars and reads only
labels. Nothing that is missing is made up: a set without templates has none, it does not get ImageNet's.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from . import storage
from .shard import IMAGE_EXTENSIONS
from .tar import TarReader, TarWriter

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
DATASET_TYPE = "dataset_type.txt"
CLASSIFICATION = "classification"
_PLACEHOLDER = re.compile(r"\{c?\}")


def _image_extension(data: bytes) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    raise DataError(f"an evaluation image must be webp, png or jpg; this one starts with {data[:12]!r}")


def _write_lines(path: str, lines: Sequence[str]) -> None:
    if bad := [line for line in lines if not line.strip() or "\n" in line or "\r" in line]:
        raise DataError(f"{path}: {bad[0]!r} cannot be a line of its own")
    storage.write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def write_evalset(
    folder: str,
    classnames: Sequence[str],
    templates: Sequence[str],
    splits: Mapping[str, Iterable[tuple[bytes, int]]],
    samples_per_tar: int = 10_000,
) -> None:
    """Write a classification set; the same arguments always give the same bytes.

    Args:
        folder: path or URL of the set's folder.
        classnames: class names in label order.
        templates: prompts with ``{c}`` or ``{}`` where the class name goes.
        splits: split name -> ``(image bytes, label)`` in order; images are stored as they are (webp, png or jpg).
        samples_per_tar: samples per tar; the last may hold fewer.

    Raises:
        DataError: a template without a placeholder, a label outside the class names, an image of another format.
    """
    for template in templates:
        if not _PLACEHOLDER.search(template):
            raise DataError(f"template {template!r} has no {{c}} for the class name")
    _write_lines(storage.join(folder, CLASSNAMES), classnames)
    _write_lines(storage.join(folder, TEMPLATES), templates)
    for split, samples in splits.items():
        number = 0
        for start, block in _blocks(samples, samples_per_tar):
            with storage.publishing(storage.join(folder, split, f"{number}.tar")) as path, TarWriter(path) as tar:
                for index, (image, label) in enumerate(block, start):
                    if not 0 <= label < len(classnames):
                        raise DataError(f"{split} sample {index}: label {label} is outside {len(classnames)} classes")
                    tar.write(f"s{index:07d}", {_image_extension(image): image, "cls": str(label).encode()})
            number += 1
        storage.write_bytes(storage.join(folder, split, "nshards.txt"), f"{number}\n".encode())


def _blocks(samples: Iterable[tuple[bytes, int]], size: int) -> Iterator[tuple[int, list[tuple[bytes, int]]]]:
    start, block = 0, []
    for sample in samples:
        block.append(sample)
        if len(block) == size:
            yield start, block
            start, block = start + size, []
    if block:
        yield start, block


class EvalSplit:
    """One split of a set: labels in memory, images read when asked for, in file order.

    Attributes:
        name: split name, say ``test``.
        keys: sample keys, ``n`` of them.
        labels: ``(n,) int64`` class numbers.
    """

    def __init__(self, folder: str, name: str, classes: int) -> None:
        self.name = name
        self._tars = [TarReader(path).require_whole() for path in _tar_paths(folder, name)]
        self.keys: list[str] = []
        self._spans: list[tuple[int, int, int]] = []  # tar, offset, size of each image
        labels = []
        for number, tar in enumerate(self._tars):
            images, texts, view = tar.spans(*IMAGE_EXTENSIONS), tar.spans("cls"), tar.view()
            for key in tar.keys:
                where = f"{tar.path}: sample {key}"
                if key not in images or key not in texts:
                    raise DataError(f"{where} has no {'image' if key not in images else 'cls'} member")
                offset, size = texts[key]
                labels.append(_label(view[offset : offset + size].tobytes(), classes, where))
                self.keys.append(key)
                self._spans.append((number, *images[key]))
        self.labels = np.asarray(labels, np.int64)

    def __len__(self) -> int:
        return len(self.keys)

    def image(self, index: int) -> bytes:
        """Encoded bytes of sample `index`."""
        tar, offset, size = self._spans[index]
        return self._tars[tar].view()[offset : offset + size].tobytes()

    def images(self) -> Iterator[bytes]:
        """Encoded bytes of all samples, in order; none is kept."""
        return (self.image(index) for index in range(len(self)))


def _label(text: bytes, classes: int, where: str) -> int:
    try:
        label = int(text)
    except ValueError as error:
        raise DataError(f"{where}: label {text[:20]!r} is not an integer") from error
    if not 0 <= label < classes:
        raise DataError(f"{where}: label {label} is outside the {classes} names of {CLASSNAMES}")
    return label


def _tar_paths(folder: str, split: str) -> list[str]:
    path = storage.join(folder, split, "nshards.txt")
    if not storage.exists(path):
        raise DataError(f"{path} is missing; the evaluation set has no split {split!r}")
    text = storage.read_bytes(path).decode().strip()
    if not text.isdigit():
        raise DataError(f"{path} must hold one integer, not {text[:20]!r}")
    tars = [storage.join(folder, split, f"{number}.tar") for number in range(int(text))]
    for tar in tars:
        if not storage.exists(tar):
            raise DataError(f"{tar} is missing, although {path} counts {text} tars")
    return tars


def _lines(path: str) -> tuple[str, ...]:
    """Stripped lines of a text file; empty when it is not there. A blank line between others would shift labels."""
    if not storage.exists(path):
        return ()
    text = storage.read_bytes(path).decode().rstrip()
    lines = tuple(line.strip() for line in text.split("\n")) if text else ()
    if "" in lines:
        raise DataError(f"{path}: line {lines.index('') + 1} is blank")
    return lines


@dataclass(frozen=True)
class EvalSet:
    """An evaluation set on disk or in an object store.

    Attributes:
        name: the folder's name without CLIP_benchmark's ``wds_`` and ``_test``.
        folder: its path or URL.
        classnames: class names in label order.
        templates: prompt templates as written; empty when the set brings none.
        dataset_type: ``classification``, or another type that CLIP_benchmark names.
    """

    name: str
    folder: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    dataset_type: str

    @classmethod
    def open(cls, folder: str) -> EvalSet:
        """Read the texts of the set in `folder`.

        Raises:
            DataError: no such folder, a classification set without class names, a template without a placeholder.
        """
        folder = folder.rstrip("/")
        if not storage.list_names(folder):
            raise DataError(f"no evaluation set at {folder}: the folder is missing or empty")
        kind = (_lines(storage.join(folder, DATASET_TYPE)) or (CLASSIFICATION,))[0]
        classnames = _lines(storage.join(folder, CLASSNAMES))
        if kind == CLASSIFICATION and not classnames:
            raise DataError(f"{storage.join(folder, CLASSNAMES)} is missing or empty; a classification set needs it")
        templates = _lines(storage.join(folder, TEMPLATES))
        for template in templates:
            if not _PLACEHOLDER.search(template):
                raise DataError(f"{storage.join(folder, TEMPLATES)}: {template!r} has no {{c}} for the class name")
        name = folder.rsplit("/", 1)[-1].removeprefix("wds_").removesuffix("_test")
        return cls(name, folder, classnames, templates, kind)

    def split_names(self) -> list[str]:
        """Sorted names of the splits that are there."""
        return [
            n for n in storage.list_names(self.folder) if storage.exists(storage.join(self.folder, n, "nshards.txt"))
        ]

    def split(self, name: str) -> EvalSplit:
        """Map one split.

        Raises:
            DataError: the split, a tar, an image or a label is missing or broken, or the set is no classification set.
        """
        if self.dataset_type != CLASSIFICATION:
            raise DataError(f"{self.folder} is a {self.dataset_type} set; only classification sets have labels")
        return EvalSplit(self.folder, name, len(self.classnames))

    def prompts(self, classname: str, templates: Sequence[str] | None = None) -> list[str]:
        """The templates with `classname` in place of ``{c}`` or ``{}``; the set's own unless others are given.

        Raises:
            DataError: there are no templates; they are never borrowed from another set.
        """
        chosen = self.templates if templates is None else templates
        if not chosen:
            raise DataError(f"{storage.join(self.folder, TEMPLATES)} is missing; zero-shot evaluation needs templates")
        return [_PLACEHOLDER.sub(lambda _: classname, template) for template in chosen]

    @functools.cached_property
    def digest(self) -> str:
        """BLAKE2b-128 over texts and every tar, as hex: the content's identity. Reads the whole set once."""
        digest = hashlib.blake2b(digest_size=16)

        def add(name: str, data: bytes) -> None:
            digest.update(f"{name}\0{len(data)}\0".encode())
            digest.update(data)

        for name, lines in (("classnames", self.classnames), ("templates", self.templates)):
            add(name, "\n".join(lines).encode())
        add("type", self.dataset_type.encode())
        for split in self.split_names():
            for path in _tar_paths(self.folder, split):
                with open(storage.local(path), "rb") as file:
                    content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
                add(path.removeprefix(self.folder), content.digest())
        return digest.hexdigest()
