"""Samples -> batches: which samples, which crops and which replacements, all functions of (seed, step).

Batch ``s`` holds positions ``s b`` to ``(s + 1) b - 1`` of the order (`order.py`); the last one ends exactly at
``samples_seen``. So any batch can be made without the ones before it, which is all that resuming needs. A corrupt image
is replaced by another sample, drawn by the position, and counted. Decoded images stay in memory up to a budget and are
never evicted: epochs visit everything equally often, so whatever is kept is as good as anything else, while a
least-recently-used cache would drop each image just before its turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from cykooz_resizer import Resizer

from ..errors import DataError
from ..shards.images.image import ImageError, decode_rgb
from . import order, streams
from .dataset import SubsetDataset
from .tokenizer import Tokenizer
from .transform import crop_and_resize, crops

REPLACEMENTS = 64  # draws for one corrupt image; all of them corrupt means that the data is


@dataclass
class Batch:
    """One step's samples. The arrays are overwritten by the next batch.

    Attributes:
        step: number of the step, from 0.
        samples: ``(b,) int64``, their numbers in the dataset, replacements included.
        images: ``(b, h, w, 3) uint8``, cropped and resized, not normalised.
        tokens: ``(m, context_length) int64``, the distinct captions.
        caption: ``(b,) int64``, row of `tokens` of each sample.
        replaced: samples of this batch that stand in for a corrupt one.
    """

    step: int
    samples: np.ndarray
    images: np.ndarray
    tokens: np.ndarray
    caption: np.ndarray
    replaced: int


class Loader:
    """Batches of a dataset for one training.

    Attributes:
        steps: number of batches.
        samples_seen: in all of them.
        corrupt: names (``shard/key``) of the corrupt samples met so far.
    """

    def __init__(
        self,
        dataset: SubsetDataset,
        tokenizer: Tokenizer,
        image_size: tuple[int, int],
        batch_size: int,
        samples_seen: int,
        seed: int,
        crop_scale: tuple[float, float] = (0.9, 1.0),
        cache_mb: int = 256,
    ) -> None:
        if samples_seen < 1 or batch_size < 1:
            raise ValueError(f"samples_seen {samples_seen} and batch_size {batch_size} must be positive")
        self._dataset, self._tokenizer = dataset, tokenizer
        self._batch_size, self.samples_seen, self._seed = batch_size, samples_seen, seed
        self._crop_scale = crop_scale
        self._crop_stream = streams.key(seed, "crop")
        self._replace_stream = streams.key(seed, "replace")
        self._resizer = Resizer()
        self._buffer = np.empty((min(batch_size, samples_seen), *image_size, 3), np.uint8)
        self._decoded: dict[int, np.ndarray] = {}
        self._room = cache_mb << 20
        self._corrupt: dict[int, str] = {}
        self.steps = -(-samples_seen // batch_size)

    @property
    def corrupt(self) -> list[str]:
        return sorted(self._corrupt.values())

    def samples_seen_after(self, steps: int) -> int:
        """Samples in the first `steps` batches."""
        return min(steps * self._batch_size, self.samples_seen)

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """The batches from `start_step` on.

        Raises:
            DataError: hardly any image can be decoded.
        """
        for step in range(start_step, self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> Batch:
        """Batch of step `step`, a pure function of it."""
        start, stop = self.samples_seen_after(step), self.samples_seen_after(step + 1)
        samples = order.positions(self._seed, len(self._dataset), start, stop).tolist()
        pixels: list[np.ndarray] = []
        replaced = 0
        for at, sample in enumerate(samples):
            image = self._pixels(sample)
            if image is None:
                samples[at], image = self._replacement(start + at)
                replaced += 1
            pixels.append(image)

        heights = np.array([image.shape[0] for image in pixels])
        widths = np.array([image.shape[1] for image in pixels])
        boxes = crops(self._crop_stream, start, heights, widths, self._crop_scale)
        images = self._buffer[: len(pixels)]
        for out, image, box in zip(images, pixels, boxes, strict=True):
            crop_and_resize(self._resizer, image, box, out)

        distinct: dict[str, int] = {}
        caption = [distinct.setdefault(self._dataset.caption(sample), len(distinct)) for sample in samples]
        return Batch(step, np.array(samples), images, self._tokenizer(list(distinct)), np.array(caption), replaced)

    def _replacement(self, position: int) -> tuple[int, np.ndarray]:
        """A decodable sample, and its image, in place of the corrupt one at `position`."""
        for word in streams.words(self._replace_stream, position, position + 1, REPLACEMENTS)[0]:
            sample = int(word % np.uint64(len(self._dataset)))
            image = self._pixels(sample)
            if image is not None:
                return sample, image
        raise DataError(
            f"{len(self._corrupt)} of the {self._dataset.distinct} images cannot be decoded, such as "
            f"{next(iter(self._corrupt.values()))}; too few are left to train on"
        )

    def _pixels(self, sample: int) -> np.ndarray | None:
        """Decoded image ``(h, w, 3) uint8``, or None if it is corrupt."""
        source = self._dataset.source(sample)
        image = self._decoded.get(source)
        if image is None and source not in self._corrupt:
            try:
                image = decode_rgb(self._dataset.image(sample))
            except ImageError:
                self._corrupt[source] = self._dataset.name(sample)
                return None
            if image.nbytes <= self._room:
                self._decoded[source] = image
                self._room -= image.nbytes
        return image
