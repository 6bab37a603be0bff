"""What a report shows of the pool and of how subsets came out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Pool:
    """What came in.

    Attributes:
        rows: rows of the input, failures included.
        fetched: rows whose image is there.
        failures: reason code -> rows; adds up to ``rows - fetched``.
        languages: language code -> rows, if identified.
        bytes: size of the shards.
        sources: name -> rows, in pools of several sources.
        copied: rows whose image was taken from another shard's row that names it too.
        animated: images stored by the first of their pictures.
        damaged: sentences about input files that were torn.
    """

    rows: int
    fetched: int
    failures: Mapping[str, int] = field(default_factory=dict)
    languages: Mapping[str, int] = field(default_factory=dict)
    bytes: int | None = None
    sources: Mapping[str, int] = field(default_factory=dict)
    copied: int = 0
    animated: int = 0
    damaged: Sequence[str] = ()


@dataclass
class FunnelStep:
    """One filter of a subset (or the fetch before them).

    Attributes:
        reasons: reason code -> rows dropped; adds up to ``entered - kept``.
        detail: its options in short, such as "languages en, min_words 3".
    """

    label: str
    entered: int
    kept: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    detail: str = ""

    @property
    def dropped(self) -> int:
        return self.entered - self.kept


@dataclass
class Funnel:
    """How a subset came about, from all rows of the pool to what was kept.

    Attributes:
        steps: the first enters with `pool` rows, each next one with what the one before kept.
        samples: kept samples counted with repeats; None = each once.
        repeats: times -> kept rows that are repeated so often; adds up to what was kept, with repeats to `samples`.
            Empty = not known.
    """

    subset: str
    pool: int
    steps: Sequence[FunnelStep]
    samples: int | None = None
    description: str = ""
    repeats: Mapping[int, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        return self.steps[-1].kept if self.steps else self.pool


@dataclass
class Split:
    """How one subset cut a column: its threshold, and the histogram of rows on either side of the decision.

    Attributes:
        thresholds: values at which its filter cuts.
        kept, dropped: rows per bin that reached its filter and stayed or went; empty = not known.
        filter: named where a subset cuts one column twice.
        groups: how many groups it cuts, each at a threshold of its own; 0 = all rows alike.
    """

    subset: str
    thresholds: Sequence[float] = ()
    kept: Sequence[int] = ()
    dropped: Sequence[int] = ()
    filter: str = ""
    groups: int = 0


@dataclass
class Histogram:
    """Distribution of one score column over the fetched pool.

    Attributes:
        edges: ``bins + 1`` ascending bin edges.
        counts: rows per bin.
        missing: rows without a value.
        low, high: the lowest and the highest value, if they are not the ends of the axis.
        correct, wrong: rows per bin whose caption is right or wrong, when the truth is known.
    """

    column: str
    edges: Sequence[float]
    counts: Sequence[int]
    splits: Sequence[Split] = ()
    missing: int = 0
    correct: Sequence[int] = ()
    wrong: Sequence[int] = ()
    description: str = ""
    low: float | None = None
    high: float | None = None
