"""Samples -> batches: which samples, crops, captions and replacements, all functions of (seed, position).

Batch ``s`` of batches of ``b`` holds positions ``s b`` to ``(s + 1) b - 1`` of the order (`order.py`); the last one
ends exactly at ``samples_seen``. Each process makes its own run of consecutive samples of it (`world.py`). So any batch
can be made without the ones before it, by any number of processes and threads: the step is all that resuming needs. A
corrupt image is replaced by another sample, drawn by the position, and counted. Decoded images stay in memory up to a
budget and are never evicted: epochs visit everything equally often, so whatever is kept is as good as anything else,
while a least-recently-used cache would drop each image just before its turn.

Price, per process: the uint8 images of one batch, of three with threads (one is used, two are made).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np

from ...errors import DataError
from ...shards.images.image import ImageError
from .. import streams
from ..processes.world import ALONE, World
from .augment import augment
from .augment_options import Augment
from .batch import Batch
from .jpeg_crop import Source, crop_into, open_source, whole
from .mixed_batch import Mixing
from .mixup import whole_pairs
from .prefetch import Draft, made_ahead
from .samples import Samples
from .short_tokens import cut_tokens, end_mark
from .tokenizer import Tokenizer
from .transform import crops
from .view import View

REPLACEMENTS = 64  # draws for one corrupt image; all of them corrupt means that the data is
_PIECE = 16  # samples that a thread makes at a time
_AHEAD = 2  # batches


class StepPlan(Protocol):
    """Steps of different batch sizes and views, as `phases.PhasePlan`."""

    @property
    def steps(self) -> int: ...

    @property
    def samples_seen(self) -> int: ...

    def samples_before(self, step: int) -> int: ...

    def view(self, step: int) -> View: ...


class Loader:
    """Batches of a dataset for one training.

    Attributes:
        steps: number of batches.
        samples_seen: in all of them, by all processes.
        wait_s: seconds that the consumer of `batches` has waited for them so far (without threads: all that it took to
            make them).
    """

    def __init__(
        self,
        dataset: Samples,
        tokenizer: Tokenizer | None,
        image_size: tuple[int, int],
        batch_size: int,
        samples_seen: int,
        seed: int,
        crop_scale: tuple[float, float] = (0.9, 1.0),
        cache_mb: int = 256,
        world: World = ALONE,
        threads: int = 0,
        views: Callable[[int], View] | None = None,
        augment: Augment | None = None,
        plan: StepPlan | None = None,
        pin: bool = False,
        mixing: Mixing | None = None,
    ) -> None:
        """
        Args:
            tokenizer: None = captions are not read.
            image_size: height and width in pixels.
            batch_size: of all processes together.
            cache_mb: decoded images that are kept, in MiB.
            threads: that make batches ahead; 0 = none, a batch is made when it is asked for.
            views: how a step's samples are looked at, in place of `image_size` and `crop_scale`.
            plan: steps of different sizes, in place of `batch_size`, `samples_seen` and `views`.
            pin: keep images in page-locked memory, from which a GPU copies by itself; needs a GPU.
            mixing: of pictures that have labels and no captions.
        """
        self.steps = -(-samples_seen // batch_size) if batch_size > 0 else 0
        self.samples_seen = samples_seen
        if plan is not None:
            self.steps, self.samples_seen = plan.steps, plan.samples_seen
        elif samples_seen < 1 or batch_size < 1:
            raise ValueError(f"samples_seen {samples_seen} and batch_size {batch_size} must be positive")
        fixed = View(image_size, crop_scale)
        self._view = plan.view if plan is not None else views or (lambda step: fixed)
        self._dataset, self._tokenizer, self._world, self._plan = dataset, tokenizer, world, plan
        self._batch_size, self._seed, self._threads = batch_size, seed, threads
        self._augment, self._mixing = augment or Augment(), mixing
        self._streams = {name: streams.key(seed, name) for name in ("crop", "replace", "augment")}
        self._memory = [_Memory(pin) for _ in range(_AHEAD + 1 if threads else 1)]
        self._decoded: dict[int, Source] = {}
        self._room = cache_mb << 20
        self._corrupt: dict[int, str] = {}
        self._lock = threading.Lock()
        self._end: int | None = None
        self.wait_s = 0.0

    @property
    def corrupt(self) -> list[str]:
        """Names (``shard/key``) of the corrupt samples that this process has met so far."""
        return sorted(self._corrupt.values())

    def samples_seen_after(self, steps: int) -> int:
        """Samples in the first `steps` batches."""
        if self._plan is not None:
            return self._plan.samples_before(steps)
        return min(steps * self._batch_size, self.samples_seen)

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """The batches from `start_step` on; close the iterator to end its threads early.

        Raises:
            DataError: hardly any image can be decoded.
        """
        if self._threads:
            yield from made_ahead(self._draft, start_step, self.steps, self._threads, _AHEAD, self._waited)
            return
        for step in range(start_step, self.steps):
            begun = time.monotonic()
            batch = self.batch(step)
            self._waited(time.monotonic() - begun)
            yield batch

    def batch(self, step: int) -> Batch:
        """Batch of step `step`, a pure function of it."""
        return self._draft(step, 0).make()

    def _waited(self, seconds: float) -> None:
        self.wait_s += seconds

    def _draft(self, step: int, slot: int) -> Draft[Batch]:
        """How the batch of a step is made, in the memory of a slot."""
        begin, end = self.samples_seen_after(step), self.samples_seen_after(step + 1)
        first, stop = own = self._world.share(end - begin)
        if self._mixing is not None:
            first, stop = whole_pairs(first, stop, end - begin)
        view = self._view(step)
        images = self._memory[slot].images(stop - first, view.image_size)
        samples = self._dataset.order(self._seed, begin + first, begin + stop)
        no_tokens, no_captions = np.empty((0, 0), np.int64), np.full(len(samples), -1, np.int64)
        batch = Batch(step, first, end - begin, samples, images, no_tokens, [], no_captions, None, None, replaced=0)
        pieces = [
            partial(self._make_images, batch, view, begin + first, at, min(at + _PIECE, len(samples)))
            for at in range(0, len(samples), _PIECE)
        ]
        finish = partial(self._finish, batch, view, begin + first)
        mixing = self._mixing
        return Draft(pieces, finish if mixing is None else lambda: mixing(finish(), *own))

    def _finish(self, batch: Batch, view: View, position: int) -> Batch:
        """Captions and labels, of the samples as they are after replacements."""
        positions = np.arange(position, position + len(batch.samples))
        if self._tokenizer is not None:
            distinct: dict[str, int] = {}
            found = self._dataset.texts(batch.samples, self._seed, positions)
            caption = [-1 if text is None else distinct.setdefault(text, len(distinct)) for text in found]
            batch.caption, batch.texts = np.array(caption, np.int64), list(distinct)
            batch.tokens = self._tokenizer(batch.texts)
            if view.text_length is not None:
                if self._end is None:
                    self._end = end_mark(self._tokenizer)
                batch.tokens = cut_tokens(batch.tokens, view.text_length, self._end)
        if len(self._dataset.classes):
            batch.label_rows, batch.label_ids = self._dataset.labels(batch.samples)
        return batch

    def _make_images(self, batch: Batch, view: View, position: int, start: int, stop: int) -> None:
        """Images ``start..stop-1`` of a batch whose first sample is at `position`."""
        sources = [self._opened(sample) for sample in batch.samples[start:stop].tolist()]
        heights = np.array([source.height if source else 1 for source in sources])
        widths = np.array([source.width if source else 1 for source in sources])
        boxes = crops(self._streams["crop"], position + start, heights, widths, view.crop_scale)
        for at, source, box in zip(range(start, stop), sources, boxes.tolist(), strict=True):
            if source is None or not self._cropped(source, box, batch, at):
                self._replace(batch, view, position, at)
        augment(batch.images[start:stop], self._augment, self._streams["augment"], position + start)

    def _cropped(self, source: Source, box: list[int], batch: Batch, at: int) -> bool:
        """Make image `at` of the batch; false if its sample turns out to be corrupt."""
        try:
            crop_into(source, (box[0], box[1], box[2], box[3]), batch.images[at])
        except ImageError:
            self._note_corrupt(int(batch.samples[at]))
            return False
        return True

    def _replace(self, batch: Batch, view: View, position: int, at: int) -> None:
        """Put another sample in place `at`, where there is a corrupt one."""
        place = position + at
        lost = int(batch.samples[at])
        for word in streams.words(self._streams["replace"], place, place + 1, REPLACEMENTS)[0].tolist():
            batch.samples[at] = sample = self._dataset.substitute(lost, word)
            source = self._opened(sample)
            if source is None:
                continue
            size = np.array([source.height]), np.array([source.width])
            box = crops(self._streams["crop"], place, *size, view.crop_scale)[0].tolist()
            if self._cropped(source, box, batch, at):
                with self._lock:
                    batch.replaced += 1
                return
        raise DataError(
            f"{len(self._corrupt)} of the {self._dataset.distinct} images cannot be decoded, such as "
            f"{next(iter(self._corrupt.values()))}; too few are left to train on"
        )

    def _opened(self, sample: int) -> Source | None:
        """An image to crop, or None if it is corrupt; kept in memory if there is room."""
        number = self._dataset.source(sample)
        found = self._decoded.get(number)
        if found is not None or number in self._corrupt:
            return found
        try:
            source = open_source(self._dataset.image(sample))
            need = 4 * (source.height + 1) * source.width
            if need > self._room:
                return source
            source = whole(source)
        except ImageError:
            self._note_corrupt(sample)
            return None
        with self._lock:
            if need <= self._room and number not in self._decoded:
                self._room -= need
                self._decoded[number] = source
        return source

    def _note_corrupt(self, sample: int) -> None:
        self._corrupt[self._dataset.source(sample)] = self._dataset.name(sample)


class _Memory:
    """Images of one batch, in memory that is used again."""

    def __init__(self, pin: bool) -> None:
        self._pin, self._flat = pin, np.empty(0, np.uint8)

    def images(self, count: int, size: tuple[int, int]) -> np.ndarray:
        """``(count, h, w, 3) uint8``."""
        need = count * size[0] * size[1] * 3
        if len(self._flat) < need:
            self._flat = _pinned(need) if self._pin else np.empty(need, np.uint8)
        return self._flat[:need].reshape(count, *size, 3)


def _pinned(size: int) -> np.ndarray:
    import torch

    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
