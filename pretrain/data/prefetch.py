"""Batches made ahead by a pool of threads, in order, a bounded number of them.

A batch is cut into pieces of a few samples, which any thread may make; decoding and resizing let go of Python's lock,
so threads are enough, and every array is written where it is read: no pickling, no shared memory, no start-up, where
loader processes need all three. Price: what Python itself does (a tenth of the work) is not parallel, so about eight
threads are worth having per process.

An error of any piece comes out at the batch it belongs to, after the batches before it. Closing the iterator (or losing
the reference to it) drops what has not begun and waits for what has.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Draft(Generic[T]):
    """A batch that is being made.

    Attributes:
        pieces: work that can be done in any order, by any thread.
        finish: makes the batch once all of it is done.
    """

    def __init__(self, pieces: list[Callable[[], None]], finish: Callable[[], T]) -> None:
        self.pieces, self.finish = pieces, finish

    def make(self) -> T:
        """Do all of it here and now."""
        for piece in self.pieces:
            piece()
        return self.finish()


def made_ahead(
    draft: Callable[[int, int], Draft[T]],
    start: int,
    stop: int,
    threads: int,
    ahead: int,
    waited: Callable[[float], None],
) -> Iterator[T]:
    """The batches ``start..stop-1`` in order.

    Args:
        draft: of (number, slot): slots 0 to `ahead` name the memory that a batch may use; what a consumer holds and
            what is made ahead never share one. Called in the consumer's thread.
        ahead: batches that are made before they are asked for, at least 1.
        waited: told the seconds that each batch was waited for.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads, "loader")
    drafted = start

    def fill() -> None:
        nonlocal drafted
        while drafted < stop and len(waiting) < ahead:
            waiting.append(_begun(pool, draft(drafted, drafted % (ahead + 1))))
            drafted += 1

    try:
        fill()
        while waiting:
            batch = waiting.popleft()
            fill()  # the consumer has let go of its batch by asking for the next one
            since = time.monotonic()
            made = batch.result()
            waited(time.monotonic() - since)
            yield made
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begun(pool: ThreadPoolExecutor, draft: Draft[T]) -> Future[T]:
    """A batch whose pieces are in the pool; whoever does the last one finishes it."""
    made: Future[T] = Future()
    lock = threading.Lock()
    left = len(draft.pieces)

    def finish() -> None:
        try:
            made.set_result(draft.finish())
        except BaseException as error:  # noqa: BLE001  (it is the consumer's)
            made.set_exception(error)

    def run(piece: Callable[[], None]) -> None:
        nonlocal left
        try:
            piece()
        except BaseException as error:  # noqa: BLE001  (it is the consumer's)
            with lock:
                if not made.done():
                    made.set_exception(error)
            return
        with lock:
            left -= 1
            last = left == 0
        if last:
            finish()

    for piece in draft.pieces:
        pool.submit(run, piece)
    if not draft.pieces:
        pool.submit(finish)
    return made
