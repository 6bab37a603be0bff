"""What a report shows, as plain dataclasses: no arrays, no tables, no paths.

They lie in a file per section of the page and are all here. Whoever makes a report fills these; `check.check_report`
refuses data that does not add up, `build.build_report` draws it. Every section is optional: what is None or empty is
absent from the page, its link too. Rates and accuracies are fractions 0-1, times seconds, sizes bytes. Text may be
hostile anywhere; it is made harmless where it is written, not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .estimates import Estimate, Metric, Unit
from .gallery_data import Card, Gallery, Pair, Picture
from .pool_data import Funnel, FunnelStep, Histogram, Pool, Split
from .result_data import Arm, Confusion, Contrast, Headline, Leaderboard, PerClass
from .scaling_data import Scaling
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
from .stage_data import Provenance, Stages, StageTime
from .subset_data import FilterFacts, Group, Leakage, LeakSet, Overlap, Quotas
from .training_data import Curve, Line, Training
from .truth_data import Cluster, ClusterMap, Fault, FilterTruth


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
class Report:
    """One page.

    Attributes:
        notes: caveats, shown under the headline and not only at the bottom.
        meanings: reason code -> what it means, shown wherever the code is.
        curves: of every training; `trainings`: what each did and took.
        scaling: how the error falls with data and training.
        networks: filter networks beside what they keep.
        looks: who looked at the pool.
        commonest: columns of words and flags; `histograms` are those of numbers.
        learned: scores that were learned.
        score_facts: how each score was made.
        overlap: which rows subsets have in common.
        filter_facts: how each filter came to its decisions.
        quotas: what filters kept of each group.
        leakage: evaluation images found in the pool.
        evaluation: relative path of the page with all results in detail.
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
    trainings: Sequence[Training] = ()
    leaderboard: Leaderboard | None = None
    scaling: Scaling | None = None
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
    evaluation: str = ""


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
    "Line",
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
    "Scaling",
    "ScoreFacts",
    "Split",
    "StageTime",
    "Stages",
    "Tally",
    "Training",
    "Unit",
    "Weight",
]
