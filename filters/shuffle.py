"""The pure pieces of a shuffle, shared by every implementation of `base.Pool`.

A shuffle sends rows to buckets, reduces every bucket whole, and brings the results back to the parts. How the rows
travel (memory, files, a cluster) is the pool's affair; what a reducer sees, and what a part finds again, is defined
here, so that it is the same everywhere: `gather` puts a bucket's rows in (uid, part, row) order, `align` puts results
where a part finds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .base import Emitted


def split(emitted: Emitted, buckets: int) -> dict[int, Emitted]:
    """The rows of each bucket that has any, in the order in which they were emitted."""
    order = np.argsort(emitted.bucket, kind="stable")
    bounds = np.searchsorted(emitted.bucket[order], np.arange(buckets + 1))
    found = {}
    for bucket in np.flatnonzero(np.diff(bounds)):
        chosen = order[bounds[bucket] : bounds[bucket + 1]]
        values = {name: array[chosen] for name, array in emitted.values.items()}
        found[int(bucket)] = Emitted(emitted.bucket[chosen], emitted.rows[chosen], emitted.uids[chosen], values)
    return found


def gather(emitted: Sequence[tuple[int, Emitted]]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """What a reducer sees of one bucket.

    Args:
        emitted: ``(part index, its rows of the bucket)`` in any order; at least one.

    Returns:
        ``rows``, the values and ``uids`` in (uid, part, row) order, and the part and row that each came from.
    """
    uids = np.concatenate([e.uids for _, e in emitted])
    part_of = np.concatenate([np.full(len(e.rows), part, np.int64) for part, e in emitted])
    row_of = np.concatenate([np.asarray(e.rows, np.int64) for _, e in emitted])
    order = np.argsort(uids["f0"])  # four times faster than all keys, and nearly always enough
    first = uids["f0"][order]
    if (first[1:] == first[:-1]).any():
        order = np.lexsort((row_of, part_of, uids["f1"], uids["f0"]))
    rows = {"uids": uids[order]}
    for name in emitted[0][1].values:
        rows[name] = np.concatenate([e.values[name] for _, e in emitted])[order]
    return rows, part_of[order], row_of[order]


def align(alive: np.ndarray, results: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Results of a part's rows, laid out along its alive rows.

    Args:
        alive: ``(n,)`` row numbers, ascending.
        results: from any number of buckets: ``row``, ``(m,)`` row numbers among `alive`, and arrays aligned with it.

    Returns:
        Each array with first axis ``n`` (0, False or NaN where no bucket returned the row), and ``found``, a mask.
    """
    aligned: dict[str, np.ndarray] = {"found": np.zeros(len(alive), bool)}
    for result in results:
        at = np.searchsorted(alive, result["row"])
        aligned["found"][at] = True
        for name, values in result.items():
            if name == "row":
                continue
            if name not in aligned:
                fill = np.nan if values.dtype.kind == "f" else np.zeros((), values.dtype)
                aligned[name] = np.full((len(alive), *values.shape[1:]), fill, values.dtype)
            aligned[name][at] = values
    return aligned
