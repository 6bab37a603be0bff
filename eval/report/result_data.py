"""What a report shows of what the subsets did to the models: headline and leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .estimates import Estimate, Metric


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
class Arm:
    """One row of the leaderboard.

    Attributes:
        unique_images: distinct images it was trained on.
        samples_seen: samples seen in training, repeats counted.
        scores: metric name -> value.
        differences: metric name -> arm minus control, paired by seed; none for the control.
        like_chance: names of metrics on which no seed's model can be told from guessing.
    """

    name: str
    scores: Mapping[str, Estimate]
    differences: Mapping[str, Estimate] = field(default_factory=dict)
    unique_images: int | None = None
    samples_seen: int | None = None
    description: str = ""
    like_chance: Sequence[str] = ()


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
        shown: names of the metrics that the section has room for, () = all; the others are on the page of all results.
        control: name of the arm that differences are taken from.
        interval: how the intervals were made, in a few words.
    """

    metrics: Sequence[Metric]
    arms: Sequence[Arm]
    control: str = ""
    interval: str = "95 % interval over seeds"
    per_class: Sequence[PerClass] = ()
    confusions: Sequence[Confusion] = ()
    shown: Sequence[str] = ()
