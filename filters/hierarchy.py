"""Sampling from the top of a hierarchy of clusters down: equal shares at every node, as far as there are rows.

    arr = sizes * m;  if sum(arr) <= T: take arr
    c = largest integer with sum(min(c, arr)) <= T;  what is left: one more for children with arr > c, drawn

(Vo et al., arXiv 2405.15613.) c comes from one sort and prefix sums. The draw at a node depends on the seed, the level,
the node and the child only, not on a stream, so nodes may be visited in any order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..shards.uid import RECORD
from .draw import uid_hash

PURPOSE = "hierarchical_sampling"


def capped_shares(available: np.ndarray, target: int, lots: np.ndarray) -> np.ndarray:
    """Shares as equal as possible with ``0 <= share <= available`` and the sum `target`, ``(k,) int64``.

    Args:
        available: ``(k,) int64``.
        target: not negative; more than there is takes everything.
        lots: ``(k,)`` who gets one more of what equal shares leave: the smallest, then the first.
    """
    available = np.asarray(available, np.int64)
    if int(available.sum()) <= target:
        return available.copy()
    ordered = np.sort(available)
    before = np.concatenate([[0], np.cumsum(ordered)[:-1]])
    others = len(ordered) - np.arange(len(ordered))
    first = int(np.argmax(before + ordered * others > target))  # the first child that the cap cuts
    cap = (target - int(before[first])) // int(others[first])
    shares = np.minimum(available, cap)
    able = np.flatnonzero(available > cap)
    lucky = able[np.argsort(lots[able], kind="stable")][: target - int(shares.sum())]
    shares[lucky] += 1
    return shares


def node_lots(level: int, node: int, children: np.ndarray, seed: int) -> np.ndarray:
    """``(k,) uint64`` lots of a node's children."""
    records = np.empty(len(children), RECORD)
    records["f0"] = np.uint64(level) << np.uint64(48) | np.uint64(node)
    records["f1"] = children.astype(np.uint64)
    return uid_hash(records, seed, PURPOSE)


def sum_children(values: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Sum of the ``(k,) int64`` values of each node's children, ``(nodes,) int64``."""
    sums = np.zeros(int(parent.max(initial=-1)) + 1, np.int64)
    np.add.at(sums, parent, values)
    return sums


def top_down(sizes: np.ndarray, parents: Sequence[np.ndarray], target: int, repeats: int, seed: int) -> np.ndarray:
    """Samples that each leaf gives, ``(k,) int64``, repeats included.

    Args:
        sizes: ``(k,) int64`` rows of the leaves (level 1).
        parents: for each level from the first on, ``(clusters of the level,)`` cluster of the next; may be empty.
        target: samples in all.
        repeats: how often a row may be taken (m).
    """
    flat = [np.asarray(sizes, np.int64)]
    for parent in parents:
        flat.append(sum_children(flat[-1], parent))
    top = flat[-1]
    shares = capped_shares(top * repeats, target, node_lots(len(flat), 0, np.arange(len(top)), seed))
    for level in range(len(parents), 0, -1):
        parent, below = parents[level - 1], np.zeros(len(flat[level - 1]), np.int64)
        order = np.argsort(parent, kind="stable")
        bounds = np.searchsorted(parent[order], np.arange(len(shares) + 1))
        for node in np.flatnonzero(shares):
            children = order[bounds[node] : bounds[node + 1]]
            lots = node_lots(level, int(node), children, seed)
            below[children] = capped_shares(flat[level - 1][children] * repeats, int(shares[node]), lots)
        shares = below
    return shares
