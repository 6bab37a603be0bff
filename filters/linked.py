"""Connected components of rows that met in several shuffles, out of core.

Each meeting already says, of every row in it, which row speaks for its component there (`label`: that row's hash). What
remains is to join the meetings: in one bucket if the rows with a neighbour are few enough, else by handing the smallest
label around, group by group, until nothing changes. Both are exact. The second takes as many rounds as the longest
chain of components of meetings, of as many shuffles as there are meetings: a handful, where the first takes one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Emitted, Part, Pool, Routed
from .components import Components
from .hamming import bucket_of
from .survivor_order import best_first, preference

ROWS_IN_MEMORY = 4_000_000
"""Rows with a neighbour that one worker joins: about 200 bytes a row, 800 MB."""
ROWS_PER_BUCKET = 1_000_000
MAX_BUCKETS = 4096


def first_of_component(pool: Pool, column: str, prefer: str | None, meetings: tuple[Routed, ...]) -> Routed:
    """Rows that lead their component.

    Args:
        column: of hashes, different for all rows that met.
        prefer: column that puts rows in order (`survivor_order`).
        meetings: per row ``distance`` and ``label``, of rows that met. Every row with a neighbour in any meeting has,
            in that meeting, the label of its component there.

    Returns:
        ``leads``, for every row that has a neighbour.
    """
    linked = sum(pool.map(_linked_count, meetings))
    if linked <= ROWS_IN_MEMORY:
        return pool.shuffle(_emit_links, _reduce_links, 1, column, prefer, meetings)
    buckets = min(MAX_BUCKETS, 1 + linked // ROWS_PER_BUCKET)
    latest = meetings
    while True:
        before = latest
        for number, meeting in enumerate(meetings):
            routed = pool.shuffle(_emit_group, _reduce_group, buckets, column, meeting, latest, buckets)
            latest = (*latest[:number], routed, *latest[number + 1 :])
        if not sum(pool.map(_changes, column, before, latest)):
            break
    return pool.shuffle(_emit_components, _reduce_components, buckets, column, prefer, meetings, latest, buckets)


def _hashes(part: Part, column: str) -> np.ndarray:
    return part.arrow(column).fill_null(0).to_numpy().astype(np.uint64, copy=False)


def _labels(part: Part, column: str, routed: tuple[Routed, ...]) -> np.ndarray:
    """``(n, meetings) uint64``: each row's label in each meeting, its own hash where it was not there."""
    own = _hashes(part, column)
    labels = np.repeat(own[:, None], len(routed), axis=1)
    for number, one in enumerate(routed):
        columns = one.of(part)
        if columns["found"].any():
            labels[:, number] = np.where(columns["found"], columns["label"], own)
    return labels


def _linked(part: Part, meetings: tuple[Routed, ...]) -> np.ndarray:
    """Mask of the rows that have a neighbour."""
    linked = np.zeros(len(part), bool)
    for meeting in meetings:
        columns = meeting.of(part)
        if columns["found"].any():
            linked |= columns["found"] & (columns["distance"] < 255)
    return linked


def _linked_count(part: Part, meetings: tuple[Routed, ...]) -> int:
    return int(_linked(part, meetings).sum())


def _emit_links(part: Part, column: str, prefer: str | None, meetings: tuple[Routed, ...]) -> Emitted:
    at = np.flatnonzero(_linked(part, meetings))
    values = {"hash": _hashes(part, column)[at], "labels": _labels(part, column, meetings)[at]}
    values |= {name: array[at] for name, array in preference(part, prefer).items()}
    return Emitted(np.zeros(len(at), np.int64), part.rows[at], part.uids()[at], values)


def _reduce_links(bucket: int, rows: dict[str, np.ndarray], *_: Any) -> dict[str, np.ndarray]:
    order = best_first(rows, rows["hash"])
    hashes, labels = rows["hash"][order], rows["labels"][order]
    by_hash = np.argsort(hashes)
    components = Components(len(order))
    for number in range(labels.shape[1]):  # whoever speaks for others has a neighbour, so it is here
        components.join(np.arange(len(order)), by_hash[np.searchsorted(hashes[by_hash], labels[:, number])])
    leads = np.empty(len(order), bool)
    leads[order] = components.labels() == np.arange(len(order))
    return {"leads": leads}


def _emit_group(part: Part, column: str, meeting: Routed, latest: tuple[Routed, ...], buckets: int) -> Emitted:
    """Rows with company in a meeting, to its label, with the smallest label that they have heard of."""
    columns = meeting.of(part)
    some = columns["found"].any()
    at = np.flatnonzero(columns["found"] & (columns["distance"] < 255)) if some else np.empty(0, np.int64)
    group = columns["label"][at] if some else np.empty(0, np.uint64)
    smallest = _labels(part, column, latest).min(axis=1)[at]
    return Emitted(bucket_of(group, buckets), part.rows[at], part.uids()[at], {"group": group, "label": smallest})


def _reduce_group(bucket: int, rows: dict[str, np.ndarray], *_: Any) -> dict[str, np.ndarray]:
    order = np.lexsort((rows["label"], rows["group"]))
    group = rows["group"][order]
    opens = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    label = np.empty_like(group)
    label[order] = np.repeat(rows["label"][order][opens], np.diff(np.append(opens, len(group))))
    return {"label": label}


def _changes(part: Part, column: str, before: tuple[Routed, ...], after: tuple[Routed, ...]) -> int:
    """Rows that heard of a smaller label."""
    smallest = [_labels(part, column, routed).min(axis=1) for routed in (before, after)]
    return int((smallest[0] != smallest[1]).sum())


def _emit_components(
    part: Part, column: str, prefer: str | None, meetings: tuple[Routed, ...], latest: tuple[Routed, ...], buckets: int
) -> Emitted:
    at = np.flatnonzero(_linked(part, meetings))
    label = _labels(part, column, latest).min(axis=1)[at]
    values = {"hash": _hashes(part, column)[at], "label": label}
    values |= {name: array[at] for name, array in preference(part, prefer).items()}
    return Emitted(bucket_of(label, buckets), part.rows[at], part.uids()[at], values)


def _reduce_components(bucket: int, rows: dict[str, np.ndarray], *_: Any) -> dict[str, np.ndarray]:
    order = best_first(rows, rows["hash"])
    order = order[np.argsort(rows["label"][order], kind="stable")]
    label = rows["label"][order]
    leads = np.ones(len(order), bool)
    leads[order[1:]] = label[1:] != label[:-1]
    return {"leads": leads}
