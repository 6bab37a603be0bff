"""Which rows of a pool name the same image: so that it is fetched once, whatever shards the rows are in.

Every shard-to-be has an index of its rows' URLs (128-bit hashes of their canonical form), sorted by hash; `find_copies`
reads one range of hashes from all indexes and tells which rows repeat a URL of a shard with a lower number. Rows of one
shard that name one URL are the fetcher's business. Indexes are kept, so a pool that grows compares its new shards with
the old ones at 24 bytes a row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from . import storage
from .web.address import UrlError, check_url

ENTRY = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("row", "<u8")])
COPY = np.dtype([("number", "<i8"), ("row", "<i8"), ("owner", "<i8"), ("origin", "<i8")])
"""Row `row` of shard `number` takes the image of row `origin` of shard `owner`."""


def index_urls(urls: Sequence[str | None], boxes: Sequence[Any] | None = None) -> np.ndarray:
    """Index of a shard's rows, ``(m,)`` of `ENTRY` sorted by hash; rows without a valid URL are left out.

    `boxes`: what is blurred in each row's image; rows that differ in it are different images.
    """
    entries = []
    for row, url in enumerate(urls):
        try:
            target = check_url(url)
        except UrlError:
            continue
        blurred = json.dumps(boxes[row]) if boxes is not None and boxes[row] else ""
        digest = hashlib.blake2b(f"{target.url}\0{target.credentials}\0{blurred}".encode(), digest_size=16).digest()
        entries.append((int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"), row))
    found = np.array(entries, ENTRY) if entries else np.empty(0, ENTRY)
    return found[np.lexsort((found["row"], found["f1"], found["f0"]))]


def write_index(path: str, index: np.ndarray) -> None:
    """Publish an index."""
    with storage.publishing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, index)


def find_copies(indexes: Mapping[int, str], wanted: Iterable[int], group: int, groups: int) -> np.ndarray:
    """Copies among the rows of the `wanted` shards: ``(m,)`` of `COPY`, sorted by shard and row.

    Args:
        indexes: paths of the indexes by shard number.
        group: which of `groups` equal ranges of hashes to look at.
    """
    low, high = (np.uint64((i << 64) // groups - (i == groups)) for i in (group, group + 1))
    pieces, owners = [], []
    for number in sorted(indexes):
        entries = np.load(storage.local(indexes[number]), mmap_mode="r", allow_pickle=False)
        start = np.searchsorted(entries["f0"], low)
        stop = np.searchsorted(entries["f0"], high, side="right" if group + 1 == groups else "left")
        pieces.append(np.array(entries[start:stop]))
        owners.append(np.full(int(stop - start), number, np.int64))
    if not pieces:
        return np.empty(0, COPY)
    entries, numbers = np.concatenate(pieces), np.concatenate(owners)
    order = np.lexsort((entries["row"], numbers, entries["f1"], entries["f0"]))
    entries, numbers = entries[order], numbers[order]
    new = np.ones(len(entries), bool)
    new[1:] = (entries["f0"][1:] != entries["f0"][:-1]) | (entries["f1"][1:] != entries["f1"][:-1])
    first = np.flatnonzero(new)[np.cumsum(new) - 1] if len(entries) else np.empty(0, np.int64)
    is_copy = (numbers[first] != numbers) & np.isin(numbers, np.fromiter(wanted, np.int64))
    copies = np.empty(int(is_copy.sum()), COPY)
    copies["number"], copies["row"] = numbers[is_copy], entries["row"][is_copy]
    copies["owner"], copies["origin"] = numbers[first][is_copy], entries["row"][first][is_copy]
    return copies[np.lexsort((copies["row"], copies["number"]))]


def copies_of(paths: Iterable[str], number: int) -> np.ndarray:
    """The copies of one shard, from the files that hold what `find_copies` gave; ``(m,)`` of `COPY` sorted by row."""
    pieces = []
    for path in paths:
        copies = np.load(storage.local(path), mmap_mode="r", allow_pickle=False)
        start, stop = np.searchsorted(copies["number"], [number, number + 1])
        pieces.append(np.array(copies[start:stop]))
    found = np.concatenate(pieces) if pieces else np.empty(0, COPY)
    return found[np.argsort(found["row"], kind="stable")]
