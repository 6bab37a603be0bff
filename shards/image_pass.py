"""One pass over the pictures of some shards: every picture is read once and decoded once, for all who want to see it.

Decoding is most of what a look at a picture costs on a fast model, so encoders and pixel scores share it. A reader's
`prepare` (resizing, measuring) runs in decoding threads beside the model; its `take` runs in the caller's thread, in
the order of shards and rows, so whatever a reader collects is the same for any number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from .images.image import ImageError, decode_rgb
from .shard import IMAGE_EXTENSIONS, Shard, succeeded

STATUS = ("ok", "not_fetched", "missing", "corrupt")
"""What became of a row's picture: seen, never fetched, not in the tar, or not decodable."""
OK, NOT_FETCHED, MISSING, CORRUPT = range(4)
AHEAD = 128  # pictures prepared and waiting


class Picture:
    """A stored picture.

    Attributes:
        body: the encoded file.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body

    @cached_property
    def rgb(self) -> np.ndarray:
        """Decoded pixels, ``(h, w, 3) uint8``; shared by all readers, so never written to.

        Raises:
            ImageError: it cannot be decoded.
        """
        return decode_rgb(self.body)


class ImageReader(Protocol):
    """Somebody who looks at every picture of some shards."""

    def begin(self, index: int, shard: Shard, rows: int) -> None:
        """Shard `index` of the pass comes next; it has `rows` rows."""
        ...

    def prepare(self, picture: Picture) -> Any:
        """What `take` wants of a picture; called in any thread, in any order, so it must be a pure function."""
        ...

    def take(self, index: int, row: int, prepared: Any) -> None:
        """The picture of a row, in the order of (shard, row); rows without a picture are left out."""
        ...

    def finish(self) -> None:
        """All pictures of all shards were taken."""
        ...


def read_images(
    shards: Sequence[Shard],
    readers: Sequence[ImageReader],
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[np.ndarray]:
    """Show every fetched picture of the shards to every reader.

    Args:
        threads: decoding threads beside the caller's; 0 = decode in the caller's.
        progress: called with (rows done, rows), of all shards.

    Returns:
        Per shard ``(rows,) uint8``, an index into `STATUS` for every row.
    """
    tables = [shard.read_table(["key", "status"]) for shard in shards]
    total, before = sum(map(len, tables)), 0
    found: list[np.ndarray] = []
    with ThreadPoolExecutor(max(threads, 1), "curate-decode") as pool:
        waiting: deque[tuple[int, int, Any]] = deque()

        def settle(leave: int) -> None:
            while len(waiting) > leave:
                index, row, outcome = waiting.popleft()
                prepared = outcome.result() if isinstance(outcome, Future) else outcome
                if prepared is None:
                    found[index][row] = CORRUPT
                    continue
                for reader, value in zip(readers, prepared, strict=True):
                    reader.take(index, row, value)

        for index, (shard, table) in enumerate(zip(shards, tables, strict=True)):
            status = np.full(len(table), NOT_FETCHED, np.uint8)
            found.append(status)
            for reader in readers:
                reader.begin(index, shard, len(table))
            tar = shard.open()
            fetched = np.flatnonzero(succeeded(table))
            for row, key in zip(fetched.tolist(), table["key"].take(fetched).to_pylist(), strict=True):
                body = tar.read(key, *IMAGE_EXTENSIONS)
                status[row] = OK if body is not None else MISSING
                if body is None:
                    continue
                work = pool.submit(_prepare, body, readers) if threads else _prepare(body, readers)
                waiting.append((index, row, work))
                settle(AHEAD if threads else 0)
                if progress and row % 64 == 0:
                    progress(before + row, total)
            before += len(table)
        settle(0)
    for reader in readers:
        reader.finish()
    if progress:
        progress(total, total)
    return found


def _prepare(body: bytes, readers: Sequence[ImageReader]) -> list[Any] | None:
    """What each reader wants of a picture; None if it cannot be decoded."""
    picture = Picture(body)
    try:
        picture.rgb  # noqa: B018  (decode now: a picture that one reader cannot see, none sees)
    except ImageError:
        return None
    return [reader.prepare(picture) for reader in readers]
