"""The truth about a pool whose faults were planted (the demo's), and how each filter did against it.

Being a copy is not a property of a row but of a group: of m copies of one picture that reach a filter, m - 1 are too
many, whichever they are. So copies are counted per filter, among the rows that reached it, in favour of what it
dropped: dropping all but any one of a group is right, dropping the last one too is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...eval.report.data import Fault, FilterTruth
from ...shards import storage
from ..decisions import read_decision
from .source import Link, RunData

CAPTION_FAULTS = {"wrong": "wrong_caption", "boilerplate": "boilerplate", "foreign": "foreign", "short": "short"}
SHAPE_FAULTS = ("tiny", "strip")
GROUPS = {"exact_copy": "exact", "near_copy": "near"}


@dataclass(frozen=True)
class PartTruth:
    """The truth of one part, row-aligned with its row table.

    Attributes:
        faults: kind -> ``(n,) bool``, faults of the row itself.
        exact, near: ``(n,) int64`` groups of copies; -1 = none.
        shows: ``(n,)`` what the picture shows, as text.
    """

    faults: dict[str, np.ndarray]
    exact: np.ndarray
    near: np.ndarray
    shows: np.ndarray

    @property
    def wrong_caption(self) -> np.ndarray:
        return self.faults["wrong_caption"]

    def describe(self, row: int) -> str:
        """The truth about one row, in a few words."""
        kinds = [kind.replace("_", " ") for kind, flags in self.faults.items() if flags[row]]
        return f"truth: {', '.join(kinds) or 'good'}, shows {self.shows[row]}"


class Truth:
    """The truth of all parts, joined to the pool by uid."""

    def __init__(self, run: RunData, path: str) -> None:
        table = pq.read_table(
            storage.local(path), columns=["uid", "digit", "caption", "shape", "group_exact", "group_near"]
        )
        place = {uid: i for i, uid in enumerate(table["uid"].to_pylist())}
        self._parts = []
        for shard in run.shards:
            at = [place[uid] for uid in shard.read_table(["uid"])["uid"].to_pylist()]
            self._parts.append(_part(table.take(pa.array(at, pa.int64()))))

    @classmethod
    def of_run(cls, run: RunData) -> Truth | None:
        """The truth of the run's pool, if its one source kept one."""
        prepared = run.inputs["prepare"].data if "prepare" in run.inputs else None
        source, *others = run.config.pool.named().values()
        path = source.truth(prepared) if not others else None
        return cls(run, path) if path else None

    def of(self, index: int) -> PartTruth:
        return self._parts[index]


def _part(table: pa.Table) -> PartTruth:
    caption = table["caption"].to_numpy()
    shape = table["shape"].to_numpy()
    faults = {kind: caption == value for value, kind in CAPTION_FAULTS.items()}
    faults |= {kind: shape == kind for kind in SHAPE_FAULTS}
    return PartTruth(
        {k: np.asarray(v, bool) for k, v in faults.items()},
        table["group_exact"].to_numpy().astype(np.int64),
        table["group_near"].to_numpy().astype(np.int64),
        table["digit"].to_numpy().astype(str),
    )


def filter_truth(run: RunData, truth: Truth) -> list[FilterTruth]:
    """Every filter against the planted faults."""
    return [_judge(run, link, truth) for link in run.distinct_links]


def _judge(run: RunData, link: Link, truth: Truth) -> FilterTruth:
    flags: dict[str, list[np.ndarray]] = {}
    dropped_pieces: list[np.ndarray] = []
    for i, shard in enumerate(run.shards):
        decision = read_decision(link.artifact.data, shard.name)
        rows = decision["row"].to_numpy()
        part = truth.of(i)
        dropped_pieces.append(~decision["keep"].to_numpy())
        for kind, values in part.faults.items():
            flags.setdefault(kind, []).append(values[rows])
        for kind, name in GROUPS.items():
            flags.setdefault(kind, []).append(getattr(part, name)[rows])
    dropped = np.concatenate(dropped_pieces)
    joined = {kind: np.concatenate(pieces) for kind, pieces in flags.items()}
    for kind in GROUPS:
        joined[kind] = surplus(joined[kind], dropped)
    joined["near_copy"] &= ~joined["exact_copy"]
    targets = [k for k in link.filter.catches if k in joined]
    faulty = np.any([joined[k] for k in targets], axis=0) if targets else np.zeros(len(dropped), bool)
    good = ~np.any(list(joined.values()), axis=0)
    return FilterTruth(
        subset=link.subset,
        filter=link.label,
        entered=len(dropped),
        dropped=int(dropped.sum()),
        faulty=int(faulty.sum()),
        caught=int((faulty & dropped).sum()),
        faults=[Fault(k, int(v.sum()), int((v & dropped).sum())) for k, v in joined.items() if v.any()],
        targets=targets,
        good=int(good.sum()),
        good_dropped=int((good & dropped).sum()),
    )


def surplus(groups: np.ndarray, dropped: np.ndarray) -> np.ndarray:
    """Mask of the rows that are too many: of every group of m, m - 1, dropped rows first, then the later ones.

    Args:
        groups: ``(n,)`` group of each row; -1 = none.
        dropped: ``(n,) bool``.
    """
    order = np.lexsort((-np.arange(len(groups)), ~dropped, groups))  # in a group: dropped rows, then later rows, first
    ordered = groups[order]
    last = np.append(ordered[1:] != ordered[:-1], True) if len(ordered) else np.zeros(0, bool)
    mask = np.zeros(len(groups), bool)
    mask[order] = ~last & (ordered >= 0)
    return mask
