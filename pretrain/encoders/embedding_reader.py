"""Encoders as readers of the image pass: batches filled across shard borders, embeddings put where their rows are.

Encoders that prepare pictures alike (ViT-B-32 and RN50 do) share one reader, one resize and one batch. A reader of
masked pictures (T-MARS: what is left of a picture without its text) runs its model over the pictures that a mask
changes and takes the others from the reader of the plain ones.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch

from ...shards.image_pass import Picture
from ...shards.shard import Shard
from .encoder import IN_FLIGHT, Encoder, Wait

StoreAs = Literal["float16", "float32"]
Mask = Callable[[np.ndarray], np.ndarray | None]
"""``(h, w, 3) uint8`` -> the picture with parts painted over, or None where there is nothing to paint over. Called in
any thread; its argument is not to be written to."""


class EmbeddingReader:
    """Looks at pictures for encoders of one `Encoder.image_key` and batch size.

    Attributes:
        image: per encoder and shard index ``(rows, d)``, NaN where there is no embedding; whole after `finish`.
        not_finite: per encoder and shard index, how many embeddings were not numbers and became NaN.
        seconds: per encoder, the time that the pass waited for it.
    """

    def __init__(self, encoders: Mapping[str, Encoder], store_as: Mapping[str, StoreAs]) -> None:
        self.encoders = dict(encoders)
        self.image: dict[str, dict[int, np.ndarray]] = {name: {} for name in encoders}
        self.not_finite: dict[str, dict[int, int]] = {name: {} for name in encoders}
        self.seconds = dict.fromkeys(encoders, 0.0)
        self._store_as = store_as
        self._first = next(iter(self.encoders.values()))
        self._in_flight = IN_FLIGHT if any(e.device.type != "cpu" for e in self.encoders.values()) else 0
        self._free = [self._first.new_batch() for _ in range(self._in_flight + 1)]
        self._batch = self._free.pop()
        self._places: list[tuple[int, int]] = []
        self._running: deque[tuple[torch.Tensor, np.ndarray, dict[str, Wait]]] = deque()

    def begin(self, index: int, shard: Shard, rows: int) -> None:
        for name, encoder in self.encoders.items():
            self.image[name][index] = np.full((rows, encoder.dim), np.nan, self._store_as[name])
            self.not_finite[name][index] = 0

    def prepare(self, picture: Picture) -> np.ndarray | None:
        return self._first.prepare(picture.rgb)

    def take(self, index: int, row: int, prepared: np.ndarray | None) -> None:
        self._batch.numpy()[len(self._places)] = prepared
        self._places.append((index, row))
        if len(self._places) == len(self._batch):
            self._run()

    def finish(self) -> None:
        if self._places:
            self._batch[len(self._places) :] = 0
            self._run()
        self._settle(0)

    def _run(self) -> None:
        waits: dict[str, Wait] = {}
        for name, encoder in self.encoders.items():
            started = time.perf_counter()
            waits[name] = encoder.submit(self._batch)
            self.seconds[name] += time.perf_counter() - started
        self._running.append((self._batch, np.array(self._places), waits))
        self._places = []
        self._settle(self._in_flight)
        self._batch = self._free.pop()

    def _settle(self, leave: int) -> None:
        """Put away the features of all but the last `leave` batches."""
        while len(self._running) > leave:
            batch, places, waits = self._running.popleft()
            for name, wait in waits.items():
                started = time.perf_counter()
                features = wait()
                self.seconds[name] += time.perf_counter() - started
                self._put(name, places, features[: len(places)])
            self._free.append(batch)

    def _put(self, name: str, places: np.ndarray, features: np.ndarray) -> None:
        fine = np.isfinite(features).all(1)
        for index in np.unique(places[:, 0]).tolist():
            here = places[:, 0] == index
            self.image[name][index][places[here & fine, 1]] = features[here & fine]
            self.not_finite[name][index] += int((here & ~fine).sum())


class MaskedReader(EmbeddingReader):
    """Looks at pictures without the parts that a mask paints over.

    Attributes:
        masked: per shard index, how many pictures the mask changed.
    """

    def __init__(
        self, name: str, encoder: Encoder, mask: Mask, store_as: StoreAs, plain: tuple[EmbeddingReader, str] | None
    ) -> None:
        """
        Args:
            plain: a reader of the same pass with the same encoder and storage, placed before this one, and the
                encoder's name there; None: unmasked pictures are embedded here too.
        """
        super().__init__({name: encoder}, {name: store_as})
        self.masked: dict[int, int] = {}
        self._name, self._mask, self._plain = name, mask, plain
        self._unmasked: list[tuple[int, int]] = []

    def begin(self, index: int, shard: Shard, rows: int) -> None:
        super().begin(index, shard, rows)
        self.masked[index] = 0

    def prepare(self, picture: Picture) -> tuple[bool, np.ndarray | None]:  # type: ignore[override]
        rgb = self._mask(picture.rgb)
        if rgb is not None:
            return True, self._first.prepare(rgb)
        return False, None if self._plain else self._first.prepare(picture.rgb)

    def take(self, index: int, row: int, prepared: tuple[bool, np.ndarray | None]) -> None:  # type: ignore[override]
        masked, pixels = prepared
        self.masked[index] += masked
        if pixels is None:
            self._unmasked.append((index, row))
        else:
            super().take(index, row, pixels)

    def finish(self) -> None:
        super().finish()
        if self._plain is None or not self._unmasked:
            return
        reader, theirs = self._plain
        places = np.array(self._unmasked)
        for index in np.unique(places[:, 0]).tolist():
            rows = places[places[:, 0] == index, 1]
            found = reader.image[theirs][index][rows]
            self.image[self._name][index][rows] = found
            self.not_finite[self._name][index] += int(np.isnan(found).any(1).sum())
