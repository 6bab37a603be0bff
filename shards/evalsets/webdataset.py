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
from dataclasses import dataclass, field

from ...errors import DataError
from .. import storage
from . import texts
from .base import EvalSet, EvalSplit, LanguageTexts, plain_name
from .texts import TEMPLATES
from .webdataset_split import WebDatasetSplit, tar_paths
from .write import write_evalset

__all__ = ["TEMPLATES", "WebDatasetSet", "WebDatasetSplit", "open_webdataset", "tar_paths", "write_evalset"]

_USUAL_SPLITS = ("test", "train", "val", "validation", "trainval")  # looked for where folders cannot be listed


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
