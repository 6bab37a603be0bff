"""The text files of an evaluation set: their names, and how each is read and refused.

One fact per line or one JSON value per file, UTF-8. Whatever is wrong is told with the file and the line; nothing that
is missing is made up.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ...errors import DataError
from ...registry import unknown
from .. import storage
from .base import KINDS, PLACEHOLDER, Kind, LanguageTexts

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
CLASS_PROMPTS = "zeroshot_classification_templates.json"
DATASET_TYPE = "dataset_type.txt"
NSHARDS = "nshards.txt"
GROUPS = "groups.json"
FIELDS = "metadata_fields.txt"
LABELS = "labels.json"  # in a split: all right classes of each sample
ASSOCIATIONS = "associations.jsonl"  # in a split
LANGUAGES = "languages"  # folder

_ALIASES: dict[str, Kind] = {"image_caption_selection": "compositional"}  # CLIP_benchmark's name
_MAX_TEXT = 256 << 20  # bytes


def read_text(path: str) -> str | None:
    """The file's text, or None when it is not there.

    Raises:
        DataError: it is no UTF-8, or far too large to be a text file.
    """
    if not storage.exists(path):
        return None
    if storage.size(path) > _MAX_TEXT:
        raise DataError(f"{path} is larger than {_MAX_TEXT >> 20} MiB; that is no text file of an evaluation set")
    try:
        return storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def read_json(path: str) -> Any:
    """The file's JSON value, or None when it is not there.

    Raises:
        DataError: it is not JSON.
    """
    text = read_text(path)
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def read_lines(path: str) -> tuple[str, ...]:
    """Stripped lines of a text file; empty when it is not there. A blank line between others would shift labels."""
    text = (read_text(path) or "").rstrip()
    lines = tuple(line.strip() for line in text.split("\n")) if text else ()
    if "" in lines:
        raise DataError(f"{path}: line {lines.index('') + 1} is blank")
    return lines


def read_kind(folder: str) -> Kind:
    """What ``dataset_type.txt`` says, by CLIP_benchmark's names or ours; classification when it is not there."""
    path = storage.join(folder, DATASET_TYPE)
    lines = read_lines(path)
    if not lines:
        return "classification"
    name = lines[0].lower()
    for kind in KINDS:
        if name == kind:
            return kind
    if name in _ALIASES:
        return _ALIASES[name]
    raise DataError(f"{path}: {unknown('kind of evaluation set', name, [*KINDS, *_ALIASES])}")


def read_templates(path: str) -> tuple[str, ...]:
    """Prompt templates, one a line; empty when there is no such file.

    Raises:
        DataError: one has no place for the class name.
    """
    templates = read_lines(path)
    require_placeholders(templates, path)
    return templates


def require_placeholders(templates: Sequence[str], where: str) -> None:
    """Raise `DataError` for a template without ``{c}`` or ``{}``."""
    for template in templates:
        if not PLACEHOLDER.search(template):
            raise DataError(f"{where}: {template!r} has no {{c}} for the class name")


def read_class_prompts(folder: str, classnames: Sequence[str]) -> dict[str, tuple[str, ...]] | None:
    """``{class name: [prompts]}`` (CuPL), in label order; None when there is no such file.

    Raises:
        DataError: a class has no prompts, or the file names a class that the set does not have.
    """
    path = storage.join(folder, CLASS_PROMPTS)
    value = read_json(path)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DataError(f"{path} must be a JSON object from class names to lists of prompts")
    for name, prompts in value.items():
        if not (isinstance(prompts, list) and prompts and all(isinstance(p, str) and p.strip() for p in prompts)):
            raise DataError(f"{path}: the prompts of {name!r} must be a list of texts that are not blank")
    known = set(classnames)
    if strangers := [name for name in value if name not in known]:
        raise DataError(f"{path}: {unknown('class', strangers[0], classnames[:1000])}; see {CLASSNAMES}")
    if lost := [name for name in classnames if name not in value]:
        raise DataError(f"{path} has no prompts for {len(lost)} of {len(classnames)} classes, such as {lost[0]!r}")
    return {name: tuple(value[name]) for name in classnames}


def read_language_names(folder: str) -> list[str]:
    """Sorted names of the languages in ``languages/``."""
    return [n[:-5] for n in storage.list_names(storage.join(folder, LANGUAGES)) if n.endswith(".json") and len(n) > 5]


def read_language(folder: str, language: str, classes: int) -> LanguageTexts:
    """``languages/<language>.json``: ``[class numbers, names]``, and ``<language>_templates.txt`` beside it.

    Raises:
        DataError: the lists differ in length, a class is named twice or is not one of the set's.
    """
    path = storage.join(folder, LANGUAGES, f"{language}.json")
    value = read_json(path)
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(v, list) for v in value)):
        raise DataError(f"{path} must be a JSON list of two lists: class numbers and their names")
    indices, names = value
    if len(indices) != len(names):
        raise DataError(f"{path} has {len(indices)} class numbers for {len(names)} names")
    for place, (index, name) in enumerate(zip(indices, names, strict=True)):
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < classes:
            raise DataError(f"{path}, entry {place}: {index!r} is no number of one of the {classes} classes")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{path}, entry {place}: the name of class {index} must be a text, not {name!r}")
    if len(set(indices)) < len(indices):
        twice = next(i for i in indices if indices.count(i) > 1)
        raise DataError(f"{path} names class {twice} twice")
    if not indices:
        raise DataError(f"{path} names no class")
    pairs = sorted(zip(indices, names, strict=True))
    templates = read_templates(storage.join(folder, LANGUAGES, f"{language}_templates.txt"))
    return LanguageTexts(tuple(i for i, _ in pairs), tuple(name for _, name in pairs), templates)


def captions_of(data: bytes, where: str) -> list[str]:
    """Captions of a ``txt`` member: one a line, the two characters ``\\n`` standing for a line break inside one.

    Raises:
        DataError: a line is blank, or there is none, or it is not UTF-8.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: its captions are not UTF-8 text") from error
    lines = text.removesuffix("\n").split("\n")
    for count, line in enumerate(lines, 1):
        if not line.strip():
            raise DataError(f"{where}: caption line {count} is blank")
    return [line.removesuffix("\r").replace("\\n", "\n") for line in lines]


def caption_lines(captions: Sequence[str], where: str) -> bytes:
    """The ``txt`` member for `captions`; every kind of line break becomes ``\\n``, as CLIP_benchmark splits at all."""
    if not captions or not all(caption.strip() for caption in captions):
        raise DataError(f"{where}: captions must be given, and none may be blank")
    return "\n".join("\\n".join(caption.strip().splitlines()) for caption in captions).encode()
