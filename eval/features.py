"""Embed once: image features of a split, and class weights from prompts. Every metric is a function of these.

Image features are cached on disk under a key of *content* (weights and preprocessing, the set's bytes, the split), so
an overwritten checkpoint or set can never be met by stale features, and a killed evaluation goes on where it was. They
are float32: a metric from the cache is bit for bit the metric without it, at twice the disk of float16 (1.5 GB per
checkpoint for DataComp's 40 tasks at 512 dimensions). Text features are kept in memory only, so that each prompt is
encoded once however many sets use it, and always in the same batches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..shards import storage
from ..shards.evalset import EvalSet, EvalSplit
from ..shards.images.image import ImageError, decode_rgb

if TYPE_CHECKING:
    from ..pretrain.encoders.encoder import Encoder

CHUNK = 1024  # encoded images in memory


class Features(NamedTuple):
    """A split as the model sees it: ``image (n, d) float32``, L2-normalised, and ``labels (n,) int64``."""

    image: np.ndarray
    labels: np.ndarray


def has_head(encoder: Encoder) -> bool:
    """Whether the model classifies by itself, with named classes."""
    return getattr(encoder, "head", None) is not None


class ClassScores:
    """Logits of a model that classifies, from cached features; nothing is embedded again.

    Attributes:
        classes: names of the model's classes, in the order of its logits.
    """

    def __init__(self, encoder: Encoder, norms: Callable[[str], np.ndarray]) -> None:
        """
        Args:
            encoder: a model that `has_head`.
            norms: split name -> lengths of its features before they were normalised, ``(n,) float32``.
        """
        self._head: Any = encoder.head  # type: ignore[attr-defined]
        self._norms = norms
        self.classes: tuple[str, ...] = self._head.classes

    def blocks(self, split: str, image: np.ndarray, rows: int) -> Iterator[np.ndarray]:
        """Logits ``(b, classes) float32`` of the split's features `image`, `rows` samples at a time, in order."""
        norms = self._norms(split)
        for start in range(0, len(image), rows):
            yield self._head.logits(image[start : start + rows], norms[start : start + rows])


def image_features(
    encoder: Encoder,
    evalset: EvalSet,
    split: EvalSplit,
    cache_dir: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """Features and labels of a split, from the cache if they are there.

    Args:
        encoder: the model; of it only `digest`, `dim`, `precision`, `encode_images` and `encode_texts` are used here,
            and `head` and `encode_pooled` of one that classifies.
        cache_dir: folder of ``features-<key>.npy``; None = compute, keep nothing.
        progress: called with (images done, images).

    Raises:
        DataError: the split is empty, an image cannot be decoded, a feature is not a number, a cached file is broken.
    """
    return embedded(encoder, evalset, split, cache_dir, progress)[0]


def embedded(
    encoder: Encoder,
    evalset: EvalSet,
    split: EvalSplit,
    cache_dir: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Features, np.ndarray | None]:
    """As `image_features`, and the lengths ``(n,) float32`` that features of a model with a head had before."""
    if not len(split):
        raise DataError(f"{evalset.folder}: split {split.name!r} holds no sample")
    key = _key(encoder, evalset, split)
    path, beside = (
        storage.join(cache_dir, f"{kind}-{key}.npy") if cache_dir else None for kind in ("features", "norms")
    )
    norms = None
    if path and beside and storage.exists(path) and (not has_head(encoder) or storage.exists(beside)):
        image = _read(path, (len(split), encoder.dim))
        norms = _read(beside, (len(split),)) if has_head(encoder) else None
    else:
        image = _embed(encoder, evalset, split, progress)
        if has_head(encoder):
            norms = np.sqrt(np.einsum("nd,nd->n", image, image))
            image /= np.maximum(norms, 1e-12)[:, None]
        for file_path, values in ((beside, norms), (path, image)):
            if file_path and values is not None:
                with storage.publishing(file_path) as temporary, open(temporary, "wb") as file:
                    np.save(file, values)
    if progress:
        progress(len(split), len(split))
    return Features(image, split.labels), norms


def _key(encoder: Encoder, evalset: EvalSet, split: EvalSplit) -> str:
    content = "\0".join([encoder.digest, encoder.precision, evalset.digest, split.name])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _read(path: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        image = np.load(storage.local(path))
    except (ValueError, EOFError) as error:
        raise DataError(f"the cached features {path} cannot be read ({error}); delete the file") from error
    if image.shape != shape or image.dtype != np.float32:
        raise DataError(f"the cached features {path} are {image.shape} {image.dtype}, not {shape}; delete the file")
    return image


def _embed(
    encoder: Encoder, evalset: EvalSet, split: EvalSplit, progress: Callable[[int, int], None] | None
) -> np.ndarray:
    image = np.empty((len(split), encoder.dim), np.float32)
    for start in range(0, len(split), CHUNK):
        files = [split.image(i) for i in range(start, min(start + CHUNK, len(split)))]
        try:
            encode: Any = encoder.encode_pooled if has_head(encoder) else encoder.encode_images  # type: ignore[attr-defined]
            image[start : start + len(files)] = encode(files)
        except ImageError as error:
            raise _broken_image(evalset, split, start, files, error) from error
        if progress:
            progress(start + len(files), len(split))
    if not np.isfinite(image).all():
        bad = split.keys[int(np.argmin(np.isfinite(image).all(1)))]
        raise DataError(f"{evalset.folder}: the model's feature of {split.name} sample {bad} is not a number")
    return image


def _broken_image(
    evalset: EvalSet, split: EvalSplit, start: int, files: Sequence[bytes], error: ImageError
) -> DataError:
    """Name the sample; decoding once more is cheap, and only errors pay for it."""
    for i, data in enumerate(files, start):
        try:
            decode_rgb(data)
        except ImageError as found:
            return DataError(f"{evalset.folder}: the image of {split.name} sample {split.keys[i]} is broken: {found}")
    return DataError(f"{evalset.folder}: an image of split {split.name!r} is broken: {error}")


class TextFeatures:
    """Features of prompts; each distinct prompt is encoded once in the life of this object."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._row: dict[str, int] = {}
        self._features = np.empty((0, encoder.dim), np.float32)

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return self._features.shape[1]

    def __call__(self, prompts: Sequence[str]) -> np.ndarray:
        """``(n, d) float32``, L2-normalised."""
        new = [p for p in dict.fromkeys(prompts) if p not in self._row]
        if new:
            found = self._encoder.encode_texts(new)
            if not np.isfinite(found).all():
                bad = new[int(np.argmin(np.isfinite(found).all(1)))]
                raise DataError(f"the model's feature of the prompt {bad!r} is not a number")
            self._row.update((p, len(self._features) + i) for i, p in enumerate(new))
            self._features = np.concatenate([self._features, found])
        return self._features[[self._row[p] for p in prompts]]


def class_weights(text: TextFeatures, evalset: EvalSet, templates: Sequence[str]) -> np.ndarray:
    """Zero-shot classifier, ``(classes, d) float32``: per class the normalised mean of its normalised prompts.

    (Radford et al., ICML 2021, section 3.1.4: the ensemble is taken in embedding space.)

    Raises:
        DataError: there are no templates, or the prompts of a class cancel out.
    """
    prompts = [p for name in evalset.classnames for p in evalset.prompts(name, templates)]
    mean = text(prompts).reshape(len(evalset.classnames), -1, text.dim).mean(1)
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    if not norm.all():
        bad = evalset.classnames[int(np.argmin(norm))]
        raise DataError(f"{evalset.folder}: the prompts of class {bad!r} cancel out; the text tower is broken")
    return mean / norm


def text_hash(classnames: Sequence[str], templates: Sequence[str]) -> str:
    """32 hexadecimal characters over class names and templates: what a zero-shot number belongs to."""
    content = json.dumps([list(classnames), list(templates)], ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
