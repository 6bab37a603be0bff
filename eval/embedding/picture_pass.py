"""Pictures -> features of several models: one decode for all, one resize per model input, batches in threads.

On a CPU a thread takes some pictures from the file to the features, with one torch thread of its own: cores are busy
without waiting for each other, and a matrix product is never cut up by the number of threads, so features do not depend
on it. On a GPU the threads decode and prepare, and the caller runs the models. Results come in the order of the
pictures. Memory holds the pictures of two steps per thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ...shards.images.image import ImageError, decode_rgb

if TYPE_CHECKING:
    from ...pretrain.encoders.encoder import Encoder

STEP = 64  # pictures that a thread prepares for a GPU at a time


class BrokenPicture(Exception):
    """A picture cannot be decoded.

    Attributes:
        index: its number among the pictures of the pass.
    """

    def __init__(self, index: int, error: ImageError) -> None:
        super().__init__(str(error))
        self.index = index


def runs_prepared(encoder: Encoder) -> bool:
    """Whether it is one of ours, which take prepared pictures; others are asked for `encode_images` of files."""
    return hasattr(encoder, "submit")


def own_threads() -> int:
    """Threads that torch may use: what the machine has, or what ``OMP_NUM_THREADS`` allows."""
    import torch

    return torch.get_num_threads()


def picture_features(
    encoders: Sequence[Encoder], bodies: Iterable[bytes], threads: int, taken: Callable[[int], None]
) -> list[np.ndarray]:
    """Features of each model, ``(n, d) float32``; of a model that classifies as they are in front of its head.

    Args:
        bodies: encoded files; drawn in order, by the caller's thread.
        threads: at least 1; 1 on a CPU = everything in the caller's.
        taken: called with the number of pictures that are done.

    Raises:
        BrokenPicture: the first that cannot be decoded.
    """
    ours = [encoder for encoder in encoders if runs_prepared(encoder)]
    if len(ours) < len(encoders):
        bodies = list(bodies)
    prepared = _prepared_features(ours, bodies, threads, taken) if ours else iter(())
    found = [next(prepared) if runs_prepared(e) else _file_features(e, list(bodies)) for e in encoders]
    return found


def _file_features(encoder: Any, bodies: list[bytes]) -> np.ndarray:
    classifies = getattr(encoder, "head", None) is not None
    if not bodies:
        return np.empty((0, encoder.dim), np.float32)
    try:
        return encoder.encode_pooled(bodies) if classifies else encoder.encode_images(bodies)
    except ImageError as error:
        for index, body in enumerate(bodies):  # which one? only errors pay for looking
            try:
                decode_rgb(body)
            except ImageError as found:
                raise BrokenPicture(index, found) from found
        raise BrokenPicture(0, error) from error


def _prepared_features(
    encoders: Sequence[Any], bodies: Iterable[bytes], threads: int, taken: Callable[[int], None]
) -> Iterator[np.ndarray]:
    from ...pretrain.precision import one_thread

    on_cpu = all(encoder.device.type == "cpu" for encoder in encoders)
    inputs: dict[Hashable, list[int]] = {}  # encoders that prepare a picture alike
    for number, encoder in enumerate(encoders):
        inputs.setdefault(encoder.image_key, []).append(number)
    largest = max(encoder.batch for encoder in encoders)
    pooling = [encoder.towers for encoder in encoders if getattr(encoder, "head", None) is not None]
    parts: list[list[np.ndarray]] = [[] for _ in encoders]

    def prepare(start: int, files: list[bytes]) -> list[np.ndarray]:
        """Per model input ``(b, h, w, 3) uint8``."""
        firsts = [encoders[numbers[0]] for numbers in inputs.values()]
        batches = [np.empty((len(files), *first.image_size, 3), np.uint8) for first in firsts]
        for row, body in enumerate(files):
            try:
                rgb = decode_rgb(body)
            except ImageError as error:
                raise BrokenPicture(start + row, error) from error
            for first, batch in zip(firsts, batches, strict=True):
                batch[row] = first.prepare(rgb)
        return batches

    def forward(batches: list[np.ndarray]) -> list[np.ndarray]:
        found: list[Any] = [None] * len(encoders)
        for numbers, batch in zip(inputs.values(), batches, strict=True):
            for number in numbers:
                found[number] = encoders[number].encode_prepared(batch)
        return found

    def whole(start: int, files: list[bytes]) -> list[np.ndarray]:
        return forward(prepare(start, files))

    def put(found: list[np.ndarray]) -> None:
        for part, values in zip(parts, found, strict=True):
            part.append(values)
        taken(len(found[0]))

    step = largest if on_cpu else STEP
    drawn = iter(bodies)
    with one_thread():
        for tower in pooling:
            tower.pooled = True
        try:
            steps = _in_order(whole if on_cpu else prepare, drawn, step, threads, inline=on_cpu and threads == 1)
            for group in _joined(steps, 1 if on_cpu else max(1, largest // step)):
                put(group if on_cpu else forward(group))
        finally:
            for tower in pooling:
                tower.pooled = False
    for encoder, part in zip(encoders, parts, strict=True):
        yield np.concatenate(part) if part else np.empty((0, encoder.dim), np.float32)


def _in_order(
    work: Callable[[int, list[bytes]], list[np.ndarray]], bodies: Iterator[bytes], step: int, threads: int, inline: bool
) -> Iterator[list[np.ndarray]]:
    """Results of `work` on `step` pictures at a time, in order; two per thread are under way."""
    import torch

    start = 0
    if inline:
        while files := list(islice(bodies, step)):
            yield work(start, files)
            start += len(files)
        return
    waiting: deque[Future[list[np.ndarray]]] = deque()
    with ThreadPoolExecutor(threads, "curate-pictures", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            while files := list(islice(bodies, step)):
                waiting.append(pool.submit(work, start, files))
                start += len(files)
                while len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _joined(steps: Iterator[list[np.ndarray]], count: int) -> Iterator[list[np.ndarray]]:
    """`count` steps put together, and what is left at the end."""
    while some := list(islice(steps, count)):
        yield some[0] if len(some) == 1 else [np.concatenate(arrays) for arrays in zip(*some, strict=True)]
