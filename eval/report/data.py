"""What a report shows, as plain dataclasses: no arrays, no tables, no paths.

Whoever makes a report fills these; `check.check_report` refuses data that does not add up, `build.build_report` draws
it. Every section is optional: what is None or empty is absent from the page, its link too. Rates and accuracies are
fractions 0-1, times seconds, sizes bytes. Text may be hostile anywhere; it is made harmless where it is written, not
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .estimates import Estimate, Metric, Unit
from .score_data import (
    Commonest,
    FilterNetwork,
    FilterNetworks,
    KeptBy,
    Learned,
    LearningCurve,
    Look,
    ScoreFacts,
    Tally,
    Weight,
)
from .subset_data import FilterFacts, Group, Leakage, LeakSet, Overlap, Quotas


@dataclass
class Header:
    """Top of the page.

    Attributes:
        run: the run's name.
        summary: one line on what the run was.
        date: shown when given; nothing else on the page knows the time.
        facts: tiles, label -> value, shown after those that the page works out itself.
    """

    run: str
    summary: str = ""
    date: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Contrast:
    """A comparison written down before the run: one arm against its control, paired by seed.

    Attributes:
        difference: arm minus control, one value per pair of seeds.
        control_is: what the control stands for, such as "no filter" or "random, same size".
    """

    arm: str
    control: str
    arm_value: Estimate
    control_value: Estimate
    difference: Estimate
    control_is: str = ""


@dataclass
class Headline:
    """What curation did to one metric. The first contrast is the page's headline."""

    metric: Metric
    contrasts: Sequence[Contrast]


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


@dataclass
class Picture:
    """Encoded image bytes. Only PNG, JPEG, WebP and GIF are shown."""

    data: bytes
    mime: str
    width: int
    height: int


@dataclass
class Card:
    """One sample in a gallery. `value` is the number its filter decided by; `note` is shown as is (truth, say)."""

    uid: str
    caption: str = ""
    url: str = ""
    picture: Picture | None = None
    value: float | None = None
    reason: str = ""
    note: str = ""


@dataclass
class Pair:
    """A dropped copy and the sample that was kept in its place."""

    dropped: Card
    kept: Card


@dataclass
class Gallery:
    """Examples of one filter's decisions, drawn at random; the totals say of how many they are examples.

    Attributes:
        just_dropped, just_kept: the samples next to its threshold, nearest first.
        pairs: of a filter that drops copies.
    """

    subset: str
    filter: str
    dropped: Sequence[Card] = ()
    kept: Sequence[Card] = ()
    dropped_total: int | None = None
    kept_total: int | None = None
    note: str = ""
    just_dropped: Sequence[Card] = ()
    just_kept: Sequence[Card] = ()
    pairs: Sequence[Pair] = ()


@dataclass
class Fault:
    """One kind of planted fault among the rows that reached a filter, and how many of these it dropped."""

    kind: str
    present: int
    dropped: int


@dataclass
class FilterTruth:
    """What a filter did, judged by the truth that was kept aside.

    Attributes:
        entered, dropped: rows that reached it and rows it dropped.
        faulty: rows that reached it with a fault it is meant to catch.
        caught: of those, the dropped ones.
        faults: every kind of fault, meant or not; a row with two faults counts in both.
        targets: kinds that it is meant to catch.
        good, good_dropped: rows without any fault, and how many of these it dropped.
    """

    subset: str
    filter: str
    entered: int
    dropped: int
    faulty: int
    caught: int
    faults: Sequence[Fault] = ()
    targets: Sequence[str] = ()
    good: int = 0
    good_dropped: int = 0

    @property
    def precision(self) -> float | None:
        """Share of what it dropped that deserved it; None when it dropped nothing."""
        return self.caught / self.dropped if self.dropped else None

    @property
    def recall(self) -> float | None:
        """Share of what deserved it that it dropped; None when there was nothing to catch."""
        return self.caught / self.faulty if self.faulty else None


@dataclass
class Cluster:
    """One cluster: place on the map, size before and rows kept after, spread, and what it is about.

    Attributes:
        label: two or three words or digits, drawn beside the point.
        examples: a few captions.
        d_intra: mean cosine distance to its centroid.
        d_inter: mean cosine distance to its nearest centroids.
    """

    id: int
    x: float
    y: float
    size: int
    kept: int
    d_intra: float | None = None
    d_inter: float | None = None
    label: str = ""
    examples: Sequence[str] = ()


@dataclass
class ClusterMap:
    """The clusters of one filter of one subset, placed in two dimensions."""

    subset: str
    filter: str
    clusters: Sequence[Cluster]
    description: str = ""


@dataclass
class Curve:
    """Training loss of one arm and seed; `samples` is how many samples were seen at each point."""

    arm: str
    seed: int
    samples: Sequence[int]
    loss: Sequence[float]


@dataclass
class Arm:
    """One row of the leaderboard.

    Attributes:
        unique_images: distinct images it was trained on.
        samples_seen: samples seen in training, repeats counted.
        scores: metric name -> value.
        differences: metric name -> arm minus control, paired by seed; none for the control.
    """

    name: str
    scores: Mapping[str, Estimate]
    differences: Mapping[str, Estimate] = field(default_factory=dict)
    unique_images: int | None = None
    samples_seen: int | None = None
    description: str = ""


@dataclass
class PerClass:
    """Accuracy per class: arm -> one value per class, mean over seeds."""

    metric: str
    classes: Sequence[str]
    arms: Mapping[str, Sequence[float]]


@dataclass
class Confusion:
    """Rows are true classes, columns predictions; counts, summed over seeds."""

    arm: str
    classes: Sequence[str]
    counts: Sequence[Sequence[int]]
    metric: str = ""


@dataclass
class Leaderboard:
    """Arms against metrics, at equal training.

    Attributes:
        control: name of the arm that differences are taken from.
        interval: how the intervals were made, in a few words.
    """

    metrics: Sequence[Metric]
    arms: Sequence[Arm]
    control: str = ""
    interval: str = "95 % interval over seeds"
    per_class: Sequence[PerClass] = ()
    confusions: Sequence[Confusion] = ()


@dataclass
class StageTime:
    """What one stage cost.

    Attributes:
        state: ``run`` in this run, or ``reused`` from an earlier one.
        start: seconds since the run began; None = unknown.
        parts, items: how much work; `unit` names an item ("rows", "images").
        bytes: size of its output.
        cost: in `Stages.currency`.
    """

    name: str
    seconds: float
    state: Literal["run", "reused"] = "run"
    start: float | None = None
    parts: int | None = None
    items: int | None = None
    unit: str = "items"
    bytes: int | None = None
    peak_bytes: int | None = None
    cost: float | None = None


@dataclass
class Stages:
    """Time, memory and money by stage."""

    stages: Sequence[StageTime]
    wall_seconds: float | None = None
    currency: str = ""


@dataclass
class Provenance:
    """All that is needed to do it again.

    Attributes:
        config: the config file's text.
        fingerprints: stage -> fingerprint.
        machine: label -> value.
    """

    config: str = ""
    command: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    seeds: Sequence[int] = ()


@dataclass
class Report:
    """One page.

    Attributes:
        notes: caveats, shown under the headline and not only at the bottom.
        meanings: reason code -> what it means, shown wherever the code is.
        networks: filter networks beside what they keep.
        looks: who looked at the pool.
        commonest: columns of words and flags; `histograms` are those of numbers.
        learned: scores that were learned.
        score_facts: how each score was made.
        overlap: which rows subsets have in common.
        filter_facts: how each filter came to its decisions.
        quotas: what filters kept of each group.
        leakage: evaluation images found in the pool.
    """

    header: Header
    headline: Headline | None = None
    notes: Sequence[str] = ()
    pool: Pool | None = None
    funnels: Sequence[Funnel] = ()
    histograms: Sequence[Histogram] = ()
    galleries: Sequence[Gallery] = ()
    truth: Sequence[FilterTruth] = ()
    clusters: Sequence[ClusterMap] = ()
    curves: Sequence[Curve] = ()
    leaderboard: Leaderboard | None = None
    networks: FilterNetworks | None = None
    looks: Sequence[Look] = ()
    commonest: Sequence[Commonest] = ()
    learned: Sequence[Learned] = ()
    score_facts: Sequence[ScoreFacts] = ()
    overlap: Overlap | None = None
    filter_facts: Sequence[FilterFacts] = ()
    quotas: Sequence[Quotas] = ()
    leakage: Sequence[Leakage] = ()
    stages: Stages | None = None
    provenance: Provenance | None = None
    meanings: Mapping[str, str] = field(default_factory=dict)


__all__ = [
    "Arm",
    "Card",
    "Cluster",
    "ClusterMap",
    "Commonest",
    "Confusion",
    "Contrast",
    "Curve",
    "Estimate",
    "Fault",
    "FilterFacts",
    "FilterNetwork",
    "FilterNetworks",
    "FilterTruth",
    "Funnel",
    "FunnelStep",
    "Gallery",
    "Group",
    "Header",
    "Headline",
    "Histogram",
    "KeptBy",
    "Leaderboard",
    "LeakSet",
    "Leakage",
    "Learned",
    "LearningCurve",
    "Look",
    "Metric",
    "Overlap",
    "Pair",
    "PerClass",
    "Picture",
    "Pool",
    "Provenance",
    "Quotas",
    "Report",
    "ScoreFacts",
    "Split",
    "StageTime",
    "Stages",
    "Tally",
    "Unit",
    "Weight",
]
