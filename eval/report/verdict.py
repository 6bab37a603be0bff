"""What a paired comparison allows to be said, in one honest sentence.

An interval that includes 0 is no difference, whatever the means look like; one seed has no interval and proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from . import quantity
from .data import Contrast, Headline, Metric

Kind = Literal["gain", "loss", "unclear", "untested"]


@dataclass(frozen=True)
class Verdict:
    """One contrast in words.

    Attributes:
        kind: gain and loss only where the interval lies on one side of 0.
        label: two or three words.
        sides: "curated 91.2 % against everything 78.4 %".
        change: "+12.8 points", signed.
        interval: "[10.1, 15.5]", or nothing.
        basis: "5 paired seeds", and what follows from it.
    """

    kind: Kind
    label: str
    sides: str
    change: str
    interval: str
    basis: str

    def sentence(self) -> str:
        """The whole in one line."""
        middle = f"{self.change} {self.interval}".rstrip()
        return f"{self.label}: {self.sides}: {middle}, {self.basis}."


def judge(contrast: Contrast, metric: Metric) -> Kind:
    """Which of the four things a contrast says."""
    low, high = contrast.difference.low, contrast.difference.high
    if low is None or high is None:
        return "untested"
    if low <= 0 <= high:
        return "unclear"
    return "gain" if (low > 0) == metric.higher_is_better else "loss"


LABELS: dict[Kind, str] = {
    "gain": "Curation helped",
    "loss": "Curation hurt",
    "unclear": "No clear difference",
    "untested": "Not tested",
}


def verdict(contrast: Contrast, metric: Metric) -> Verdict:
    """Word one contrast."""
    kind = judge(contrast, metric)
    pairs = len(contrast.difference.seeds)
    basis = f"{pairs}\u00a0paired seeds" if pairs > 1 else "one seed"
    if kind == "unclear":
        basis += "; the 95 % interval includes 0".replace(" %", f"{quantity.NARROW}%")
    elif kind == "untested":
        basis += "; without an interval this may be chance"
    arm = f"{contrast.arm} {quantity.reading(contrast.arm_value.mean, metric)}"
    control = f"{contrast.control} {quantity.reading(contrast.control_value.mean, metric)}"
    return Verdict(
        kind,
        LABELS[kind],
        f"{arm} against {control}",
        quantity.change(contrast.difference.mean, metric),
        quantity.interval(contrast.difference, metric, signed=True),
        basis,
    )


def headline_sentence(headline: Headline) -> str:
    """The first contrast as one sentence of plain text, as the report's machine-readable twin carries it."""
    return verdict(headline.contrasts[0], headline.metric).sentence()
