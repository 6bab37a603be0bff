"""What a model sees of sets and texts. Every metric is a function of these features.

Each picture and each text is embedded once for all suites: pictures by `embed_once`, texts here, those of all suites
and sets together. Both are kept on disk under a key of content (`feature_cache`), in float32: a metric from the cache
is bit for bit the metric without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import DataError
from ...shards.evalsets.base import EvalSet, EvalSplit
from ..tasks.prompts import ensemble
from ..tasks.prompts import text_hash as text_hash  # numbers of features belong to it
from .feature_cache import TextCache
from .picture_pass import own_threads, runs_prepared

if TYPE_CHECKING:
    from ...pretrain.encoders.encoder import Encoder

TEXT_CHUNK = 4096  # texts that a killed evaluation may lose


class Features(NamedTuple):
    """A split as the model sees it: ``image (n, d) float32``, L2-normalised, and ``labels (n,) int64`` (empty where the
    set has no class labels)."""

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
    """Features and labels of a split of one model, from the cache if they are there.

    Args:
        cache_dir: folder where features are kept (`feature_cache`); None = compute, keep nothing.
        progress: called with (images done, images).

    Raises:
        DataError: the split is empty, an image cannot be decoded, a feature is not a number, a cached file is broken.
    """
    from .embed_once import EmbedOnce

    return EmbedOnce([encoder], cache_dir, progress, len(split)).embed(evalset, split)[0][0]


class TextFeatures:
    """Features of prompts; each distinct prompt is encoded once in the life of this object, or of its cache."""

    def __init__(
        self,
        encoder: Encoder,
        cache_dir: str | None = None,
        threads: int | None = None,
    ) -> None:
        """
        Args:
            cache_dir: folder where features are kept under a key of content; None = keep nothing.
            threads: on a CPU, threads that run the model, each with one core; None: as many as torch may use. Numbers
                do not depend on it.
        """
        self._encoder, self._threads = encoder, threads
        self._cache = TextCache(cache_dir, encoder)
        self._row: dict[str, int] = {}
        self._features = np.empty((0, encoder.dim), np.float32)

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return self._features.shape[1]

    def __call__(self, prompts: Sequence[str]) -> np.ndarray:
        """``(n, d) float32``, L2-normalised."""
        self.add(prompts)
        return self._features[[self._row[p] for p in prompts]]

    def add(self, prompts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> None:
        """Encode those that are new: short ones first, so that a batch holds texts of a length; `TEXT_CHUNK` at a time
        are kept.

        Args:
            progress: called with (texts done, texts that are new).
        """
        new = [p for p in dict.fromkeys(prompts) if p not in self._row]
        if not new:
            return
        kept, features = self._cache.read(new)
        parts = [self._features, features]
        rows = {p: len(self._features) + i for i, p in enumerate(kept)}
        left = sorted((p for p in new if p not in rows), key=lambda p: (len(p), p))
        for start in range(0, len(left), TEXT_CHUNK):
            some = left[start : start + TEXT_CHUNK]
            found = self._encode(some, len(kept) + start, len(new), progress)
            if not np.isfinite(found).all():
                bad = some[int(np.argmin(np.isfinite(found).all(1)))]
                raise DataError(f"the model's feature of the prompt {bad!r} is not a number")
            self._cache.write(some, found)
            rows.update((p, len(self._features) + len(kept) + start + i) for i, p in enumerate(some))
            parts.append(found)
        self._features = np.concatenate(parts)
        self._row |= rows
        if progress:
            progress(len(new), len(new))

    def _encode(
        self, texts: list[str], before: int, total: int, report: Callable[[int, int], None] | None
    ) -> np.ndarray:
        if not runs_prepared(self._encoder):
            return self._encoder.encode_texts(texts)
        from ...pretrain.precision import one_thread

        threads = self._threads or own_threads()
        step = (lambda done, _: report(before + done, total)) if report else None
        with one_thread():
            return self._encoder.encode_texts(texts, step, threads)


def class_weights(text: TextFeatures, evalset: EvalSet, templates: Sequence[str] | None = None) -> np.ndarray:
    """Zero-shot classifier, ``(classes, d) float32``: per class the normalised mean of its normalised prompts.

    Args:
        templates: for all classes; default: what ships with the set.

    Raises:
        DataError: there are no templates, or the prompts of a class cancel out.
    """
    prompts = [evalset.prompts(name, templates) for name in evalset.classnames]
    return ensemble(text, prompts, evalset.classnames, evalset.folder)
