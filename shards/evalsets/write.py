"""Writing evaluation sets in CLIP_benchmark's WebDataset layout; the same arguments always give the same bytes.

Classification, retrieval and multi-label sets are read by CLIP_benchmark too; compositional and association sets, and
group metadata, are ours in the same spirit. Every tar is published whole, `nshards.txt` last, so a killed writer never
leaves a split that looks complete.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from ...errors import DataError
from .. import storage
from ..tar import TarWriter
from . import texts
from .base import LanguageTexts

SAMPLES_PER_TAR = 10_000
Sample = tuple[str, dict[str, bytes]]  # key, extension -> payload


def image_extension(data: bytes) -> str:
    """Extension of an image that evaluation sets may hold.

    Raises:
        DataError: it is neither webp nor png nor jpg.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    raise DataError(f"an evaluation image must be webp, png or jpg; this one starts with {data[:12]!r}")


def write_evalset(
    folder: str,
    classnames: Sequence[str],
    templates: Sequence[str],
    splits: Mapping[str, Iterable[tuple[bytes, int]]],
    samples_per_tar: int = SAMPLES_PER_TAR,
) -> None:
    """Write a classification set.

    Args:
        folder: path or URL of the set's folder.
        classnames: class names in label order.
        templates: prompts with ``{c}`` or ``{}`` where the class name goes.
        splits: split name -> ``(image bytes, label)`` in order; images are stored as they are (webp, png or jpg).
        samples_per_tar: samples per tar; the last may hold fewer.

    Raises:
        DataError: a template without a placeholder, a label outside the class names, an image of another format.
    """
    _write_texts(folder, classnames, templates)

    def members(sample: tuple[bytes, int], where: str) -> dict[str, bytes]:
        image, label = sample
        return {image_extension(image): image, "cls": _label(label, len(classnames), where)}

    for split, samples in splits.items():
        _write_split(folder, split, _numbered(split, samples, members), samples_per_tar)


def write_groups(
    folder: str,
    classnames: Sequence[str],
    templates: Sequence[str],
    fields: Mapping[str, Sequence[str] | None],
    splits: Mapping[str, Iterable[tuple[bytes, int, Sequence[int]]]],
    samples_per_tar: int = SAMPLES_PER_TAR,
) -> None:
    """Write a classification set whose samples belong to groups.

    Args:
        fields: field name -> names of its groups by number, or None for numbers without names.
        splits: split name -> ``(image bytes, label, value of each field)`` in order.

    Raises:
        DataError: as `write_evalset`; or a sample has other fields.
    """
    _write_texts(folder, classnames, templates)
    names = {field: list(groups) for field, groups in fields.items() if groups is not None}
    _write_json(storage.join(folder, texts.GROUPS), {"fields": list(fields), "names": names})

    def members(sample: tuple[bytes, int, Sequence[int]], where: str) -> dict[str, bytes]:
        image, label, values = sample
        if len(values) != len(fields):
            raise DataError(f"{where}: {len(values)} values for the fields {', '.join(fields)}")
        vector = npy(np.asarray(values, np.int64))
        return {image_extension(image): image, "cls": _label(label, len(classnames), where), "npy": vector}

    for split, samples in splits.items():
        _write_split(folder, split, _numbered(split, samples, members), samples_per_tar)


def write_multilabel(
    folder: str,
    classnames: Sequence[str],
    templates: Sequence[str],
    splits: Mapping[str, Iterable[tuple[bytes, np.ndarray]]],
    samples_per_tar: int = SAMPLES_PER_TAR,
) -> None:
    """Write a multi-label set.

    Args:
        splits: split name -> ``(image bytes, (classes,) of 0 and 1)`` in order.

    Raises:
        DataError: as `write_evalset`; or a vector of another length or with other values.
    """
    _write_texts(folder, classnames, templates, "multilabel")

    def members(sample: tuple[bytes, np.ndarray], where: str) -> dict[str, bytes]:
        image, right = sample[0], np.asarray(sample[1])
        if right.shape != (len(classnames),) or not ((right == 0) | (right == 1)).all():
            raise DataError(f"{where}: its labels must be {len(classnames)} values of 0 and 1")
        return {image_extension(image): image, "npy": npy(right.astype(np.uint8))}

    for split, samples in splits.items():
        _write_split(folder, split, _numbered(split, samples, members), samples_per_tar)


def write_retrieval(
    folder: str,
    splits: Mapping[str, Iterable[tuple[bytes, Sequence[str]]]],
    samples_per_tar: int = SAMPLES_PER_TAR,
) -> None:
    """Write a retrieval set.

    Args:
        splits: split name -> ``(image bytes, its captions)`` in order.

    Raises:
        DataError: an image of another format, no caption, a blank one.
    """
    _write_type(folder, "retrieval")

    def members(sample: tuple[bytes, Sequence[str]], where: str) -> dict[str, bytes]:
        image, captions = sample
        return {image_extension(image): image, "txt": texts.caption_lines(captions, where)}

    for split, samples in splits.items():
        _write_split(folder, split, _numbered(split, samples, members), samples_per_tar)


def write_compositional(
    folder: str,
    splits: Mapping[str, Iterable[tuple[Sequence[bytes], Sequence[str]]]],
    samples_per_tar: int = SAMPLES_PER_TAR,
) -> None:
    """Write a compositional set.

    Args:
        splits: split name -> ``(images, captions)`` of each instance, in order; caption i is right for image i, and
            the captions beyond the images are wrong.

    Raises:
        DataError: an image of another format, fewer than two captions, more images than captions.
    """
    _write_type(folder, "compositional")

    def members(sample: tuple[Sequence[bytes], Sequence[str]], where: str) -> dict[str, bytes]:
        images, captions = sample
        if not 1 <= len(images) <= len(captions) or len(captions) < 2:
            raise DataError(f"{where}: {len(images)} images and {len(captions)} captions make no instance")
        found = {"txt": texts.caption_lines(captions, where)}
        if len(images) == 1:
            return found | {image_extension(images[0]): images[0]}
        return found | {f"{place}.{image_extension(image)}": image for place, image in enumerate(images)}

    for split, samples in splits.items():
        _write_split(folder, split, _numbered(split, samples, members), samples_per_tar)


def write_association(
    folder: str,
    splits: Mapping[str, tuple[Iterable[tuple[str, bytes]], Iterable[tuple[str, Sequence[str], Sequence[str]]]]],
    samples_per_tar: int = SAMPLES_PER_TAR,
) -> None:
    """Write an association set.

    Args:
        splits: split name -> its pictures ``(key, image bytes)``, and its instances ``(cue, keys of the candidates,
            keys of the right ones)``, both in order.

    Raises:
        DataError: a key is used twice or is not there, a right picture is no candidate.
    """
    _write_type(folder, "association")
    for split, (pictures, instances) in splits.items():
        keys: set[str] = set()

        def named(split: str = split, pictures: Any = pictures, keys: set[str] = keys) -> Iterator[Sample]:
            for key, image in pictures:
                if key in keys:
                    raise DataError(f"{split}: two pictures have the key {key!r}")
                keys.add(key)
                yield key, {image_extension(image): image}

        _write_split(folder, split, named(), samples_per_tar, finish=False)
        lines = []
        for number, (cue, candidates, right) in enumerate(instances):
            if lost := set(candidates) - keys:
                raise DataError(f"{split} instance {number}: there is no picture {sorted(lost)[0]!r}")
            if not right or not set(right) <= set(candidates):
                raise DataError(f"{split} instance {number}: its right pictures must be some of its candidates")
            line = {"key": f"a{number:07d}", "cue": cue, "candidates": list(candidates), "right": list(right)}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        storage.write_bytes(storage.join(folder, split, texts.ASSOCIATIONS), "".join(lines).encode())
        _finish(folder, split, -(-len(keys) // samples_per_tar))


def write_class_prompts(folder: str, prompts: Mapping[str, Sequence[str]]) -> None:
    """Write each class's own prompts (CuPL); they then go before the templates that all classes share."""
    _write_json(storage.join(folder, texts.CLASS_PROMPTS), {name: list(some) for name, some in prompts.items()})


def write_languages(folder: str, languages: Mapping[str, LanguageTexts | tuple[Sequence[int], Sequence[str]]]) -> None:
    """Write names of the classes in other languages; Babel-ImageNet's own ``{language: [numbers, names]}`` does."""
    for language, entry in languages.items():
        indices, names = entry[0], entry[1]
        _write_json(storage.join(folder, texts.LANGUAGES, f"{language}.json"), [list(indices), list(names)])
        if len(entry) > 2 and entry[2]:
            _write_lines(storage.join(folder, texts.LANGUAGES, f"{language}_templates.txt"), entry[2])


def write_right_classes(folder: str, split: str, lists: Sequence[Sequence[int]]) -> None:
    """Write all right classes of each sample of a classification set, in file order (ReaL); a list may be empty."""
    _write_json(storage.join(folder, split, texts.LABELS), [list(some) for some in lists], indent=None)


def npy(array: np.ndarray) -> bytes:
    """An array as the bytes of a ``.npy`` file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _label(label: int, classes: int, where: str) -> bytes:
    if not 0 <= label < classes:
        raise DataError(f"{where}: label {label} is outside {classes} classes")
    return str(int(label)).encode()


def _write_texts(folder: str, classnames: Sequence[str], templates: Sequence[str], kind: str = "") -> None:
    path = storage.join(folder, texts.TEMPLATES)
    texts.require_placeholders(templates, path)
    _write_lines(storage.join(folder, texts.CLASSNAMES), classnames)
    _write_lines(path, templates)
    if kind:
        _write_type(folder, kind)


def _write_type(folder: str, kind: str) -> None:
    _write_lines(storage.join(folder, texts.DATASET_TYPE), [kind])


def _write_lines(path: str, lines: Sequence[str]) -> None:
    if bad := [line for line in lines if not line.strip() or "\n" in line or "\r" in line]:
        raise DataError(f"{path}: {bad[0]!r} cannot be a line of its own")
    storage.write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def _write_json(path: str, value: Any, indent: int | None = 1) -> None:
    storage.write_json(path, value, indent)


def _numbered(split: str, samples: Iterable[Any], members: Any) -> Iterator[Sample]:
    for index, sample in enumerate(samples):
        yield f"s{index:07d}", members(sample, f"{split} sample {index}")


def _write_split(folder: str, split: str, samples: Iterable[Sample], samples_per_tar: int, finish: bool = True) -> None:
    iterator, number = iter(samples), 0
    while (first := next(iterator, None)) is not None:
        with storage.publishing(storage.join(folder, split, f"{number}.tar")) as path, TarWriter(path) as tar:
            for key, members in chain([first], islice(iterator, samples_per_tar - 1)):
                tar.write(key, members)
        number += 1
    if finish:
        _finish(folder, split, number)


def _finish(folder: str, split: str, tars: int) -> None:
    storage.write_bytes(storage.join(folder, split, texts.NSHARDS), f"{tars}\n".encode())
