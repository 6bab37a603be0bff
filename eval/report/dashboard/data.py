"""What a dashboard shows, as plain dataclasses: arms against measures, one value per seed, and what lies behind them.

An *arm* is one way of curating or training, with one model per seed; a *measure* is one metric of one suite on one set
under one protocol. Numbers that were not measured alike are two measures, never one column. Everything else is
optional: a page shows the sections that its data has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .example_data import Mistake, Retrieved


@dataclass
class Measure:
    """One metric of one suite on one set: a column.

    Attributes:
        name: unique; stands in links, so it should outlive the page (``imagenet1k/zero_shot/acc1``).
        label: heading of the column.
        groups: under which it is chosen, such as "VTAB-13 (DataComp's)"; one measure may be in several.
        main: main metric of its suite.
        n: test samples.
        chance: level of guessing.
        unit: "percent" for fractions 0-1 shown as percentages, else text set after the number.
        protocol: in words, with its options; `version` of the code that measured.
        text_hash: of class names and templates. `digest`: of the test set.
        templates: the first of them.
        note: what a reader of this number must know.
    """

    name: str
    label: str
    dataset: str = ""
    suite: str = ""
    metric: str = ""
    groups: Sequence[str] = ()
    main: bool = True
    n: int | None = None
    chance: float | None = None
    unit: str = "percent"
    higher_is_better: bool = True
    protocol: str = ""
    version: str = ""
    split: str = ""
    text_hash: str = ""
    digest: str = ""
    templates: Sequence[str] = ()
    note: str = ""


@dataclass
class Span:
    """A 95 % interval; `kind` says what it covers, such as "Wilson, test images"."""

    low: float
    high: float
    kind: str = ""


@dataclass
class Rank:
    """One arm's rank on one measure where the runs were compared; arms that are not told apart from the best of their
    group share one.

    Attributes:
        rank: 1 = best. `low`, `high`: 95 % interval of its place when test samples and seeds are drawn again.
        shared: arms that have this rank, this one included. `of`: arms that have any.
    """

    rank: int
    low: float | None
    high: float | None
    shared: int
    of: int


@dataclass
class Score:
    """One arm on one measure.

    Attributes:
        seeds: one value per seed of the arm, in the arm's order; None where it was not measured.
        span: of the mean over seeds; None: the page makes Student's t-interval when there are two seeds or more.
        spans: of each seed alone (test-set chance); empty if not known.
        chance: of each seed, ("above" | "below" | "like" guessing, p); empty where it was not tested.
        rank: among all arms of the page; None where they were not ranked.
    """

    seeds: Sequence[float | None]
    span: Span | None = None
    spans: Sequence[Span | None] = ()
    chance: Sequence[tuple[str, float] | None] = ()
    rank: Rank | None = None


@dataclass
class Step:
    """One filter of an arm's curation; `kept` of those that entered."""

    label: str
    entered: int
    kept: int


@dataclass
class Arm:
    """One row of the leaderboard.

    Attributes:
        seeds: names of its seeds; equal names in two arms are paired.
        scores: measure name -> score.
        facts: fact name -> number, such as samples seen or the subset's size; those that are no `Fact` of the page
            are not shown.
        pool, steps: its curation funnel, if it has one.
        report: relative path of its own report's page.
        run: name of the run that it comes from.
    """

    name: str
    seeds: Sequence[str]
    scores: Mapping[str, Score]
    description: str = ""
    run: str = ""
    facts: Mapping[str, float | None] = field(default_factory=dict)
    pool: int | None = None
    steps: Sequence[Step] = ()
    report: str = ""


@dataclass
class Fact:
    """Something known of arms that is no measure: an axis of the scatter plot."""

    name: str
    label: str
    unit: str = ""
    log: bool = True


@dataclass
class Difference:
    """Arm minus control on one measure, tested where the runs were compared (McNemar, paired bootstrap, seeds).

    Attributes:
        p, holm: p value, and after Holm's correction over the family of comparisons it was made in.
        kind: the test, in a few words.
        samples: 95 % interval for other test images of these very models. `both`: for other seeds and other images.
        wins, losses: test images that only the arm, only the control got right.
        detectable: smallest difference that the test would have found with 80 % power.
    """

    arm: str
    control: str
    measure: str
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    holm: float | None = None
    kind: str = ""
    samples: tuple[float, float] | None = None
    both: tuple[float, float] | None = None
    wins: int | None = None
    losses: int | None = None
    detectable: float | None = None


@dataclass
class Aggregate:
    """A named mean that exists only when all its members were measured, such as DataComp's average of 38.

    Attributes:
        measures: names of the members that this page has.
        needed: how many members it is defined over.
        altered: members that were measured on a set of another size than the published one, so that no mean is told.
    """

    name: str
    measures: Sequence[str]
    needed: int
    description: str = ""
    altered: Sequence[str] = ()


@dataclass
class PerClass:
    """One measure by class: arm -> one value per class, mean over seeds; `n` samples of each class."""

    measure: str
    classes: Sequence[str]
    arms: Mapping[str, Sequence[float | None]]
    n: Sequence[int] = ()


@dataclass
class Confusion:
    """What one arm took for what.

    Attributes:
        pairs: (true, predicted, count), the most frequent first.
        classes, counts: the whole matrix, rows true; only for few classes.
    """

    measure: str
    arm: str
    pairs: Sequence[tuple[str, str, int]] = ()
    classes: Sequence[str] = ()
    counts: Sequence[Sequence[int]] = ()


@dataclass
class GroupScore:
    """One arm in one group."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass
class Groups:
    """One measure by group of samples (region, income, language): arm -> one score per group.

    Attributes:
        n: samples of each group.
        chance: of each group, where guessing differs between them (languages with other classes).
    """

    measure: str
    field: str
    groups: Sequence[str]
    n: Sequence[int]
    arms: Mapping[str, Sequence[GroupScore]]
    chance: Sequence[float] = ()


@dataclass
class Robustness:
    """A line of effective robustness: logit(y) = slope * logit(x) + intercept over fractions, where `logit`.

    `fitted_on` says what it was fitted on, as a sentence.
    """

    x: str
    y: str
    slope: float
    intercept: float
    logit: bool = True
    fitted_on: str = ""


@dataclass
class Curve:
    """One line: a measure against samples seen or another size. `kind` puts lines into one plot ("Learning")."""

    kind: str
    arm: str
    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    seed: str = ""
    x_label: str = "samples seen"
    unit: str = "percent"


@dataclass
class Overall:
    """Ranks over several measures as they were compared: would other tasks of this kind give the same order?

    Attributes:
        measures: over which.
        ranks: arm -> (mean rank, low, high), with the 95 % interval for other tasks.
        tau: Kendall's tau between the order by mean and that of tasks drawn again: mean, and its 5 % quantile.
    """

    measures: Sequence[str]
    ranks: Mapping[str, tuple[float, float | None, float | None]]
    tau: tuple[float, float] | None = None


@dataclass
class Dashboard:
    """A whole page.

    Attributes:
        control: arm that differences are first taken from; "" = the first.
        notes: what a reader must know, shown on top.
        chosen: measures that are chosen when the page opens; () = the main ones.
    """

    title: str
    measures: Sequence[Measure]
    arms: Sequence[Arm]
    summary: str = ""
    control: str = ""
    notes: Sequence[str] = ()
    facts: Sequence[Fact] = ()
    differences: Sequence[Difference] = ()
    aggregates: Sequence[Aggregate] = ()
    per_class: Sequence[PerClass] = ()
    confusions: Sequence[Confusion] = ()
    groups: Sequence[Groups] = ()
    robustness: Sequence[Robustness] = ()
    curves: Sequence[Curve] = ()
    mistakes: Sequence[Mistake] = ()
    retrieved: Sequence[Retrieved] = ()
    overall: Overall | None = None
    chosen: Sequence[str] = ()
