"""Batches for learning sample weights: pairs with what their weight is made of, and labelled images with prompts.

Both are functions of (seed, step), like all batches here. Of a pool that has more rows than the training sees, exactly
as many rows as it sees are drawn, and only they are opened; what their weights are made of (score columns, embeddings)
is gathered once into one mapped file in the scratch folder, so memory holds a batch of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from cykooz_resizer import Resizer

from ...errors import DataError
from ...shards import storage
from ...shards.evalsets.open import open_evalset
from ...shards.images.image import ImageError, decode_rgb
from ...shards.shard import Shard, succeeded
from .. import streams
from ..data import order
from ..data.batch import Batch
from ..data.dataset import SubsetDataset
from ..data.loader import Loader
from ..data.tokenizer import Tokenizer
from ..data.transform import crop_and_resize, crops

ReadRows = Callable[[int, np.ndarray], np.ndarray]
"""``(shard number, (m,) ascending rows) -> (m, d)`` float16 or float32: what the weights of these rows are made of."""


def draw_rows(shards: Sequence[Shard], count: int, seed: int) -> list[np.ndarray]:
    """Rows of each shard that have an image and a caption: all, or `count` drawn without replacement; ascending.

    Raises:
        DataError: there are none.
    """
    sizes = [len(_pairs(shard)) for shard in shards]
    total = sum(sizes)
    if not total:
        raise DataError(f"none of the {len(shards)} shards holds a pair of image and caption; nothing to train on")
    if count >= total:
        return [_pairs(shard) for shard in shards]
    drawn = np.sort(order.positions(streams.key(seed, "rows"), total, 0, count))
    ends = np.cumsum(sizes)
    bounds = np.searchsorted(drawn, [0, *ends])
    chosen = []
    for shard, end, size, first, stop in zip(shards, ends, sizes, bounds[:-1], bounds[1:], strict=True):
        places = drawn[first:stop] - (end - size)
        chosen.append(_pairs(shard)[places] if len(places) else np.empty(0, np.int64))
    return chosen


def _pairs(shard: Shard) -> np.ndarray:
    table = shard.read_table(["status", "caption"])
    return np.flatnonzero(succeeded(table) & np.asarray(table["caption"].is_valid()))


@dataclass
class WeighedBatch:
    """A batch of pairs and ``inputs (b, d) float32``, what the weight of each is made of."""

    pairs: Batch
    inputs: np.ndarray


class Pairs:
    """Batches of pairs from the shards.

    Attributes:
        samples: rows that may be seen.
        identity: 32 hexadecimal characters over which rows these are.
        width: numbers per row that its weight is made of.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        read: ReadRows,
        tokenizer: Tokenizer,
        image_size: tuple[int, int],
        batch_size: int,
        steps: int,
        seed: int,
        crop_scale: tuple[float, float],
        cache_mb: int,
        scratch: str,
        inputs: str = "",
    ) -> None:
        selections = draw_rows(shards, batch_size * steps, seed)
        self._dataset = SubsetDataset(shards, selections)
        self._loader = Loader(
            self._dataset, tokenizer, image_size, batch_size, batch_size * steps, seed, crop_scale, cache_mb
        )
        self.samples = len(self._dataset)
        self.identity = self._dataset.identity()
        name = hashlib.blake2b(f"{self.identity}\0{inputs}".encode(), digest_size=16).hexdigest()
        self._inputs = _gathered(storage.join(scratch, f"inputs-{name}.npy"), read, selections)
        self.width = self._inputs.shape[1]

    @property
    def corrupt(self) -> list[str]:
        """Names of the corrupt images met so far."""
        return self._loader.corrupt

    def batch(self, step: int) -> WeighedBatch:
        """Batch of step `step`, a pure function of it; overwritten by the next."""
        pairs = self._loader.batch(step)
        rows = [self._dataset.source(i) for i in pairs.samples.tolist()]
        return WeighedBatch(pairs, np.asarray(self._inputs[rows], np.float32))


def _gathered(path: str, read: ReadRows, selections: Sequence[np.ndarray]) -> np.ndarray:
    """What `read` gives for all selected rows, one after another, mapped from a file that is written once."""
    if not storage.exists(path):
        with storage.publishing(path) as temporary:
            out: np.ndarray | None = None
            start = 0
            for index, rows in enumerate(selections):
                if not len(rows):
                    continue
                values = read(index, rows)
                if out is None:
                    shape = (sum(map(len, selections)), values.shape[1])
                    out = np.lib.format.open_memmap(temporary, "w+", values.dtype, shape)
                out[start : start + len(rows)] = values
                start += len(rows)
            if out is None:
                raise DataError("no row was drawn; nothing to train on")
            out.flush()
    return np.load(storage.local(path), mmap_mode="r", allow_pickle=False)


@dataclass
class LabelledBatch:
    """Labelled images of one step: ``images (b, h, w, 3) uint8``, ``labels (b,) int64``, and tokens of one prompt per
    class, ``(classes, context_length) int64``."""

    images: np.ndarray
    labels: np.ndarray
    prompts: np.ndarray


class Labelled:
    """Batches of an evaluation set's split, with a random one of the set's templates per class and step."""

    def __init__(
        self,
        folder: str,
        split: str,
        tokenizer: Tokenizer,
        image_size: tuple[int, int],
        batch_size: int,
        seed: int,
        crop_scale: tuple[float, float],
        cache_mb: int,
    ) -> None:
        self._set = open_evalset(folder)
        self._split = self._set.split(split)
        if not len(self._split):
            raise DataError(f"split {split!r} of {folder} holds no image; nothing to judge by")
        self._prompts = [self._set.prompts(name) for name in self._set.classnames]
        self._tokenizer, self._batch_size, self._seed = tokenizer, batch_size, seed
        self._crop_scale, self._resizer = crop_scale, Resizer()
        self._buffer = np.empty((batch_size, *image_size, 3), np.uint8)
        self._decoded: dict[int, np.ndarray] = {}
        self._room = cache_mb << 20

    @property
    def identity(self) -> str:
        """32 hexadecimal characters over the set's content and the split's name."""
        return hashlib.blake2b(f"{self._set.digest}\0{self._split.name}".encode(), digest_size=16).hexdigest()

    def batch(self, step: int) -> LabelledBatch:
        """Batch of step `step`, a pure function of it; overwritten by the next.

        Raises:
            DataError: an image cannot be decoded; an evaluation set must be whole.
        """
        start, stop = step * self._batch_size, (step + 1) * self._batch_size
        chosen = order.positions(streams.key(self._seed, "labelled"), len(self._split), start, stop).tolist()
        pixels = [self._pixels(i) for i in chosen]
        heights, widths = (np.array([image.shape[axis] for image in pixels]) for axis in (0, 1))
        boxes = crops(streams.key(self._seed, "labelled crop"), start, heights, widths, self._crop_scale)
        for out, image, box in zip(self._buffer, pixels, boxes, strict=True):
            crop_and_resize(self._resizer, image, box, out)
        words = streams.words(streams.key(self._seed, "template"), step, step + 1, len(self._prompts))[0].tolist()
        texts = [prompts[word % len(prompts)] for prompts, word in zip(self._prompts, words, strict=True)]
        return LabelledBatch(self._buffer, self._split.labels[chosen], self._tokenizer(texts))

    def _pixels(self, index: int) -> np.ndarray:
        image = self._decoded.get(index)
        if image is None:
            try:
                image = decode_rgb(self._split.image(index))
            except ImageError as error:
                where = f"sample {self._split.keys[index]} of split {self._split.name!r} of {self._set.folder}"
                raise DataError(f"{where} cannot be decoded: {error}") from error
            if image.nbytes <= self._room:
                self._decoded[index] = image
                self._room -= image.nbytes
        return image
