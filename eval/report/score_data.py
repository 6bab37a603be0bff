"""What a report shows of scores: who made them, how good that network is, what was learned, what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .estimates import Estimate, Metric


@dataclass
class KeptBy:
    """A subset that a filter network had a say in.

    Attributes:
        kept: its rows.
        through: the filters that rest on the network, with their column: "1-top_fraction by mix".
        scores: metric name -> accuracy of the models trained on it; empty when none was.
    """

    subset: str
    kept: int
    through: Sequence[str] = ()
    scores: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass
class FilterNetwork:
    """A model that judges the pool, judged itself.

    Attributes:
        encoder: its name in the config.
        made: how, in a few words: "trained here", "loaded from vit.pt".
        model: its architecture.
        pairs: distinct pairs that it was trained on; samples_seen: repeats counted.
        scores: metric name -> its own accuracy; the interval is over test pictures, as it is one training.
        subsets: those that it had a say in.
    """

    encoder: str
    made: str = ""
    model: str = ""
    pairs: int | None = None
    samples_seen: int | None = None
    scores: Mapping[str, Estimate] = field(default_factory=dict)
    subsets: Sequence[KeptBy] = ()


@dataclass
class FilterNetworks:
    """Every filter network that was measured, beside what it keeps (Fang et al., Data Filtering Networks, 2309.17425).

    Attributes:
        pool: rows of the pool.
        control: the arm without them, and its models' accuracy.
    """

    metrics: Sequence[Metric]
    networks: Sequence[FilterNetwork]
    pool: int
    control: str = ""
    control_scores: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass
class Weight:
    """The weight of one column in a mix.

    Attributes:
        weight, low, high: per standard deviation of the column; no bounds = no interval.
        mean, std: of the column over the pool, by which it was z-scored.
        missing: rows without a value, which count as the mean.
        seeds: the weight that each training found.
        auc: chance that a trusted row has a higher value than one of the pool, by this column alone.
    """

    column: str
    weight: float
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None
    missing: int | None = None
    seeds: Sequence[float] = ()
    auc: float | None = None


@dataclass
class LearningCurve:
    """Downstream loss of one training of a learned score, by step."""

    seed: int
    steps: Sequence[int]
    loss: Sequence[float]


@dataclass
class Learned:
    """A score that was learned: weights over other columns, a scoring head, or both.

    Attributes:
        learned_by: ``fixed`` | ``least_squares`` | ``logistic`` | ``m_flyt`` | ``flyt``; others are shown as they are.
        weights: empty where there are no columns to weigh.
        interval: how `Weight.low` and `Weight.high` were found.
        curves: one per seed, if it was a training.
        auc: chance that a trusted row has a higher score than one of the pool; auc_over: on which rows.
        facts: what else is known, strict JSON.
    """

    score: str
    learned_by: str
    weights: Sequence[Weight] = ()
    interval: str = ""
    curves: Sequence[LearningCurve] = ()
    auc: float | None = None
    auc_over: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


LookKind = Literal["encoder", "score of pixels", "imported embeddings", "imported score"]


@dataclass
class Tally:
    """Where every row of the pool ended for one kind of thing to look at.

    Attributes:
        what: such as "images" or "captions".
        values: rows that have a value.
        nulls: reason -> rows that have none; adds up to ``rows - values``.
    """

    what: str
    values: int
    nulls: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Look:
    """Who looked at the pool, and what of it they saw.

    Attributes:
        rows: all rows of the pool, failed ones included.
        facts: counts of an import's own files: rows, malformed, repeated...
    """

    name: str
    kind: LookKind
    rows: int
    tallies: Sequence[Tally]
    facts: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Commonest:
    """The values of a column of words or flags over the fetched pool.

    Attributes:
        values: the commonest, value -> rows, most first.
        others: rows with other values, of which there are ``distinct - len(values)``.
        missing: rows without a value.
    """

    column: str
    values: Mapping[str, int]
    distinct: int
    others: int = 0
    missing: int = 0
    description: str = ""


@dataclass
class ScoreFacts:
    """How one score was made.

    Attributes:
        type: of its scorer.
        options: those that differ from the defaults, in short.
        facts: what the scorer says of itself, strict JSON: model file, hash, temperature...
        not_drawn: columns that are no numbers, words or flags -> what they hold.
    """

    name: str
    type: str
    options: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    not_drawn: Mapping[str, str] = field(default_factory=dict)
