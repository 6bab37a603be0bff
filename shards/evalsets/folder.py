"""Evaluation sets that are image folders: ``<split>/<class>/*.jpg``, or ``<class>/*.jpg`` (then the split is ``test``).

Class names are those of the folders, in the order of their bytes, or the lines of ``classnames.txt``: the same names in
another order, or, line by line, what the folders are called in words (ImageNet's folders are WordNet ids). A folder
with ``captions.jsonl`` (lines ``{"file": path, "captions": [...]}``), beside the pictures of a split or at the root, is
a retrieval set. Pictures are in the order of the bytes of their paths, or of the lines of ``captions.jsonl``.

The price of so many files: hashing opens each once, and an object store is asked once per picture.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...errors import ConfigError, DataError
from .. import storage
from ..shard import IMAGE_EXTENSIONS
from ..sources.files import base, listing
from . import texts
from .base import Captions, EvalSet, EvalSplit, LanguageTexts, plain_name
from .content import content, files_digest, set_digest
from .webdataset_split import MAX_IMAGE

CAPTIONS = "captions.jsonl"


class FolderSplit(EvalSplit):
    """One split of an image folder."""

    def __init__(self, folder: str, name: str, files: Sequence[tuple[str, str]], labels: Sequence[int] | None) -> None:
        """
        Args:
            files: key and path of each picture, in order.
            labels: class of each picture; None = it has none.
        """
        self.name, self.where = name, f"{folder}: split {name!r}"
        self.files = list(files)
        self.keys = [key for key, _ in files]
        if labels is not None:
            self.classes = np.asarray(labels, np.int64)

    def image(self, index: int) -> bytes:
        key, path = self.files[index]
        with open(storage.local(path), "rb") as file:
            data = file.read(MAX_IMAGE + 1)
        if len(data) > MAX_IMAGE:
            raise DataError(f"{self.where}: picture {key} has more than {MAX_IMAGE:,} bytes")
        return data


@dataclass(frozen=True)
class FolderSet(EvalSet):
    """A set that is an image folder.

    Attributes:
        pictures: split name -> paths of its pictures below the split's folder, in order.
        numbers: name of a class's folder -> class number.
        nested: whether the splits have folders of their own.
    """

    pictures: dict[str, list[str]] = field(default_factory=dict, hash=False, repr=False)
    numbers: dict[str, int] = field(default_factory=dict, hash=False, repr=False)
    nested: bool = True
    _digests: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def split_names(self) -> list[str]:
        return sorted(self.pictures)

    def _root(self, split: str) -> str:
        return storage.join(self.folder, split) if self.nested else self.folder

    def _files(self, name: str) -> list[tuple[str, str]]:
        if name not in self.pictures:
            there = ", ".join(self.split_names())
            raise DataError(f"{self.folder}: the evaluation set has no split {name!r}; it has {there or 'none'}")
        return [(picture, storage.join(self._root(name), picture)) for picture in self.pictures[name]]

    def split(self, name: str) -> EvalSplit:
        files = self._files(name)
        if self.kind == "classification":
            return FolderSplit(self.folder, name, files, [self.numbers[key.split("/", 1)[0]] for key, _ in files])
        split = FolderSplit(self.folder, name, files, None)
        told = read_captions(storage.join(self._root(name), CAPTIONS))
        flat = [text for _, some in told for text in some]
        owner = np.repeat(np.arange(len(told), dtype=np.int64), [len(some) for _, some in told])
        split.captions = Captions(tuple(flat), owner)
        return split

    def languages(self) -> list[str]:
        return texts.read_language_names(self.folder) if self.nested else []

    def language_texts(self, language: str) -> LanguageTexts:
        if language not in self.languages():
            return super().language_texts(language)
        return texts.read_language(self.folder, language, len(self.classnames))

    def split_digest(self, name: str) -> str:
        if name not in self._digests:
            self._digests[name] = files_digest(self._files(name))
        return self._digests[name]

    @functools.cached_property
    def digest(self) -> str:
        beside = [texts.LANGUAGES + "/" + n for n in storage.list_names(storage.join(self.folder, texts.LANGUAGES))]
        beside += [f"{s}/{texts.LABELS}" for s in self.pictures]
        beside += [f"{s}/{CAPTIONS}" for s in self.pictures] if self.nested else [CAPTIONS]
        there = {name: storage.join(self.folder, name) for name in beside}
        about = {
            "kind": self.kind,
            "language": self.language,
            "classnames": self.classnames,
            "templates": self.templates,
            "class_prompts": self.class_prompts,
            "numbers": self.numbers,
            "beside": {name: content(path).hex() for name, path in there.items() if storage.exists(path)},
        }
        return set_digest(about, [(name, self.split_digest(name)) for name in self.split_names()])


def read_captions(path: str) -> list[tuple[str, list[str]]]:
    """Files and captions of ``captions.jsonl``, in order.

    Raises:
        DataError: a line is of another form, names a file twice, or leads out of the folder.
    """
    found, seen = [], set()
    text = texts.read_text(path)
    if text is None:
        raise DataError(f"{path} is missing; it holds the captions of a retrieval set")
    for count, line in enumerate(text.rstrip("\n").split("\n") if text.strip() else [], 1):
        where = f"{path}, line {count}"
        try:
            value = json.loads(line)
            file, captions = value["file"], value["captions"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f'{where} must be {{"file": path, "captions": [...]}}') from error
        if not isinstance(file, str) or file.startswith("/") or ".." in file.split("/") or "://" in file:
            raise DataError(f"{where}: {file!r} is no path below the folder")
        if not (isinstance(captions, list) and captions and all(isinstance(c, str) and c.strip() for c in captions)):
            raise DataError(f"{where}: the captions of {file!r} must be texts that are not blank, one at least")
        if file in seen:
            raise DataError(f"{where} names {file!r} again")
        seen.add(file)
        found.append((file, captions))
    return found


def open_folder(
    folder: str,
    name: str | None = None,
    classnames: tuple[str, ...] | None = None,
    templates: tuple[str, ...] | None = None,
    language: str = "en",
) -> FolderSet:
    """Open the image folder `folder`; see `webdataset.open_webdataset` for the arguments.

    Raises:
        DataError: no pictures, pictures at different depths, class names that do not fit the folders.
    """
    folder = folder.rstrip("/")
    try:
        root, files = base(folder), listing(folder, recursive=True)
    except ConfigError as error:
        raise DataError(f"no evaluation set at {folder}: the folder is missing or empty") from error
    paths = [file.path.removeprefix(root) for file in files]
    images = sorted((p for p in paths if p.lower().rpartition(".")[2] in IMAGE_EXTENSIONS), key=_bytes)
    told = [p for p in paths if p == CAPTIONS or (p.count("/") == 1 and p.endswith(f"/{CAPTIONS}"))]
    if templates is None:
        templates = texts.read_templates(storage.join(folder, texts.TEMPLATES))
    title = name or plain_name(folder)
    if told:
        return _retrieval(folder, title, told, set(images), templates, language)
    nested = _nested(folder, images)
    numbers, names = _classes(folder, images, nested, classnames)
    prompts = None
    if storage.exists(storage.join(folder, texts.CLASS_PROMPTS)):
        prompts = texts.read_class_prompts(folder, names)
    pictures: dict[str, list[str]] = {}
    for image in images:
        split, _, rest = image.partition("/") if nested else ("test", "", image)
        pictures.setdefault(split, []).append(rest)
    return FolderSet(title, folder, names, templates, "classification", language, prompts, pictures, numbers, nested)


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _nested(folder: str, images: Sequence[str]) -> bool:
    """Whether splits have folders: pictures lie two folders deep, not one."""
    if not images:
        raise DataError(f"no evaluation set at {folder}: there is no picture in it ({', '.join(IMAGE_EXTENSIONS)})")
    depth = {image.count("/"): image for image in images}
    if len(depth) > 1:
        one, other = sorted(depth.items())[:2]
        raise DataError(
            f"{folder}: {one[1]} and {other[1]} lie at different depths; pictures of an evaluation set lie in "
            "<class>/ or all in <split>/<class>/"
        )
    if max(depth) not in (1, 2):
        raise DataError(f"{folder}: {images[0]} lies in neither <class>/ nor <split>/<class>/, and has no {CAPTIONS}")
    return max(depth) == 2


def _classes(
    folder: str, images: Sequence[str], nested: bool, given: tuple[str, ...] | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Folder name -> class number, and class names."""
    folders = sorted({image.split("/")[int(nested)] for image in images}, key=_bytes)
    path = storage.join(folder, texts.CLASSNAMES)
    names = texts.read_lines(path) if given is None else given
    if not names:
        return {name: number for number, name in enumerate(folders)}, tuple(folders)
    if set(folders) <= set(names) and len(set(names)) == len(names):
        return {name: number for number, name in enumerate(names)}, names
    if len(names) != len(folders):
        raise DataError(
            f"{folder} has {len(folders)} class folders and {len(names)} class names; give the folders' names in "
            "label order, or one name for each folder in the order of their names"
        )
    return {name: number for number, name in enumerate(folders)}, names


def _retrieval(
    folder: str, name: str, told: Sequence[str], images: set[str], templates: tuple[str, ...], language: str
) -> FolderSet:
    nested = told != [CAPTIONS]
    if nested and CAPTIONS in told:
        raise DataError(f"{folder} has {CAPTIONS} at its root and in {told[-1]}; use one or the other")
    pictures = {}
    for one in told:
        split = one.partition("/")[0] if nested else "test"
        pictures[split] = [file for file, _ in read_captions(storage.join(folder, one))]
        prefix = f"{split}/" if nested else ""
        if lost := [file for file in pictures[split] if prefix + file not in images]:
            raise DataError(f"{storage.join(folder, one)}: there is no picture {lost[0]!r}, and {len(lost) - 1} more")
    return FolderSet(name, folder, (), templates, "retrieval", language, None, pictures, {}, nested)
