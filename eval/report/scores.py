"""The scores' section: large plots where subsets cut, small ones for the rest, words as bars, and how each was made."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from . import quantity
from .data import Histogram, Report
from .facts import fact_lines
from .figures import Table
from .histograms import histogram_plots, histogram_table
from .section import Section, Titled, first_shown
from .visible import shorten

FEW = 3  # columns up to which all are large
SMALL_BINS = 30
WORD = 60  # characters of a value that are shown


@dataclass(frozen=True)
class Bar:
    """A bar of a small histogram, in percent of its box."""

    x: float
    width: float
    height: float
    wrong: float


@dataclass(frozen=True)
class Small:
    """A histogram without axes: `ends` stand at its ends, or below it if there is only one."""

    histogram: Histogram
    bars: Sequence[Bar]
    ends: Sequence[str]
    says: str
    table: Table


def scores_section(report: Report) -> Section:
    """Distributions of all columns, however many, and how they were made."""
    many = len(report.histograms) > FEW
    large = [h for h in report.histograms if h.splits or not many]
    columns = [(h, histogram_plots(h, f"plot-score-{i}")) for i, h in enumerate(large)]
    titled = [(h, [Titled(p.title, p) for p in plots]) for h, plots in columns]
    lede = "How each score is distributed over the pool, and where subsets cut it. Pale bars are all fetched rows; "
    lede += "coloured ones are those that reached the subset's filter."
    content = {
        "columns": [Titled(h.column, (h, tabs, first_shown(tabs, report))) for h, tabs in titled],
        "tabbed": len(titled) > FEW,
        "small": [small_histogram(h) for h in report.histograms if many and not h.splits],
        "wrong": any(any(h.wrong) for h in report.histograms),
        "commonest": [(c, [(_word(v), n) for v, n in c.values.items()]) for c in report.commonest],
        "fetched": report.pool.fetched if report.pool else 0,
        "made": [(f, fact_lines(f.facts)) for f in report.score_facts],
    }
    plots = list(itertools.chain.from_iterable(p for _, p in columns))
    return Section("scores", "Scores and thresholds", "Scores", lede, content, plots)


def _word(value: str) -> str:
    return shorten(value, WORD) or "(empty)"


def small_histogram(histogram: Histogram) -> Small:
    """At most `SMALL_BINS` bars of equal share of the axis' bins."""
    together = -(-len(histogram.counts) // SMALL_BINS)
    bins = len(histogram.counts)
    low, high = histogram.edges[0], histogram.edges[-1]
    groups = [slice(i, min(i + together, bins)) for i in range(0, bins, together)]
    counts = [sum(histogram.counts[g]) for g in groups]
    wrong = [sum(histogram.wrong[g]) for g in groups]
    most = max(counts) or 1
    bars = []
    for group, n, bad in zip(groups, counts, wrong, strict=True):
        a, b = histogram.edges[group.start], histogram.edges[group.stop]
        x, width = 100 * (a - low) / (high - low), 100 * (b - a) / (high - low)
        if n:
            least = max(100 * n / most, 1.5)  # a bin that holds rows is seen
            bars.append(Bar(round(x, 3), round(width, 3), round(least, 3), round(100 * bad / most, 3)))
    rows, total = counts.index(max(counts)), sum(counts)
    peak = groups[rows]
    says = f"Histogram of {histogram.column} over {quantity.count(total)} rows from {quantity.value(low)} to "
    says += f"{quantity.value(high)}; most, {quantity.count(counts[rows])}, between "
    says += f"{quantity.value(histogram.edges[peak.start])} and {quantity.value(histogram.edges[peak.stop])}."
    table = histogram_table(histogram, None)
    least = low if histogram.low is None else histogram.low
    most_of_all = high if histogram.high is None else histogram.high
    ends = [quantity.value(least), quantity.value(most_of_all)]
    return Small(histogram, bars, [f"always {ends[0]}"] if least == most_of_all else ends, says, table)
