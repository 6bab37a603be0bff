"""Evaluation sets in the WebDataset folder layout that CLIP_benchmark reads, without a network.

A set is a folder: ``classnames.txt``, ``zeroshot_classification_templates.txt`` (or ``.json``: prompts of each class),
optionally ``dataset_type.txt`` (absent = classification), and per split ``nshards.txt`` and ``0.tar`` ...
``{n-1}.tar``. A sample holds an image and, by the set's kind, a ``cls`` (ASCII integer; with group metadata in ``npy``
beside it), a multi-hot ``npy``, captions in ``txt``, or several images ``0.jpg``, ``1.jpg`` ... with captions. Opening
reads the texts; a split maps its tars and reads only annotations. Tars of an object store are first copied to the local
cache folder, each once.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import DataError
from .. import storage
from ..shard import IMAGE_EXTENSIONS
from ..tar import TarReader
from . import texts
from .base import Association, Captions, EvalSet, EvalSplit, Instance, LanguageTexts, plain_name
from .group_fields import groups_of
from .texts import TEMPLATES
from .vectors import read_vector, stacked
from .write import write_evalset

__all__ = ["TEMPLATES", "WebDatasetSet", "WebDatasetSplit", "open_webdataset", "tar_paths", "write_evalset"]

MAX_IMAGE = 256 << 20  # bytes of one encoded picture
_USUAL_SPLITS = ("test", "train", "val", "validation", "trainval")  # looked for where folders cannot be listed


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
            if not np.isin(vectors[-1], (0, 1)).all():
                raise DataError(f"{where}: the labels of a multilabel set are 0 and 1")
        self.right = stacked(vectors, wheres, self._classes).astype(bool)

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


def open_webdataset(
    folder: str,
    name: str | None = None,
    classnames: tuple[str, ...] | None = None,
    templates: tuple[str, ...] | None = None,
    language: str = "en",
) -> WebDatasetSet:
    """Read the texts of the set in `folder`.

    Args:
        name: what results call it; default: by the folder's name.
        classnames: instead of the set's.
        templates: instead of the set's, and of its prompts by class.
        language: of its texts.

    Raises:
        DataError: no such folder, a set with classes without their names, a template without a placeholder.
    """
    folder = folder.rstrip("/")
    if not split_names(folder) and not storage.list_names(folder):
        raise DataError(f"no evaluation set at {folder}: the folder is missing or empty")
    kind = texts.read_kind(folder)
    names = texts.read_lines(storage.join(folder, texts.CLASSNAMES)) if classnames is None else classnames
    if kind in ("classification", "multilabel") and not names:
        raise DataError(f"{storage.join(folder, texts.CLASSNAMES)} is missing or empty; a {kind} set needs it")
    prompts = texts.read_class_prompts(folder, names) if templates is None else None
    if templates is None:
        templates = texts.read_templates(storage.join(folder, TEMPLATES))
    return WebDatasetSet(name or plain_name(folder), folder, names, templates, kind, language, prompts)


def split_names(folder: str) -> list[str]:
    """Sorted names of the splits of a set; of a store that cannot be listed, those with usual names."""
    names = storage.list_names(folder) if storage.is_local(folder) else _listed(folder)
    return [name for name in names if storage.exists(storage.join(folder, name, texts.NSHARDS))]


def _listed(folder: str) -> list[str]:
    try:
        return storage.list_names(folder) or sorted(_USUAL_SPLITS)
    except (OSError, NotImplementedError):  # web servers need not list folders
        return sorted(_USUAL_SPLITS)


@dataclass(frozen=True)
class WebDatasetSet(EvalSet):
    """A set in CLIP_benchmark's WebDataset layout."""

    _digests: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)  # of files, by path

    def split_names(self) -> list[str]:
        return split_names(self.folder)

    def split(self, name: str) -> EvalSplit:
        return WebDatasetSplit(self.folder, name, self.kind, len(self.classnames))

    def languages(self) -> list[str]:
        return texts.read_language_names(self.folder)

    def language_texts(self, language: str) -> LanguageTexts:
        if language not in self.languages():
            return super().language_texts(language)
        return texts.read_language(self.folder, language, len(self.classnames))

    def _content(self, path: str) -> bytes:
        """BLAKE2b-128 of a file, which is read once."""
        if path not in self._digests:
            with open(storage.local(path), "rb") as file:
                content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
            self._digests[path] = content.digest()
        return self._digests[path]

    def split_digest(self, name: str) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for path in tar_paths(self.folder, name):
            digest.update(self._content(path))
        return digest.hexdigest()

    @functools.cached_property
    def digest(self) -> str:
        """BLAKE2b-128 over texts, annotations and every tar, as hex: the content's identity. Reads each file once."""
        digest = hashlib.blake2b(digest_size=16)

        def add(name: str, data: bytes) -> None:
            digest.update(f"{name}\0{len(data)}\0".encode())
            digest.update(data)

        for name, lines in (("classnames", self.classnames), ("templates", self.templates)):
            add(name, "\n".join(lines).encode())
        add("type", self.kind.encode())
        if self.language != "en":
            add("language", self.language.encode())
        if self.class_prompts is not None:
            add("class_prompts", json.dumps(self.class_prompts, ensure_ascii=False).encode())
        splits = self.split_names()
        beside = [texts.GROUPS, texts.FIELDS]
        beside += [f"{texts.LANGUAGES}/{n}" for n in storage.list_names(storage.join(self.folder, texts.LANGUAGES))]
        beside += [f"{split}/{name}" for split in splits for name in (texts.LABELS, texts.ASSOCIATIONS)]
        for name in beside:
            path = storage.join(self.folder, name)
            if storage.exists(path):
                add(name, self._content(path))
        for split in splits:
            for path in tar_paths(self.folder, split):
                add(path.removeprefix(self.folder), self._content(path))
        return digest.hexdigest()
