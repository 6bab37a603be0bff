"""What the report shows of subsets: it adds up or is refused, and is read as it was written."""

import dataclasses
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import DataError
from curate.eval.report import data
from curate.eval.report.build import render
from curate.eval.report.check import check_report
from curate.eval.report.histograms import histogram_plots
from curate.eval.report.overlaps import overlap_section
from curate.eval.report.quota_plot import LISTED, quota_view
from curate.eval.report.repeats import repeat_bars


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


subsets = load("report_sample_subsets")


def report(**sections: Any) -> data.Report:
    return data.Report(data.Header("x"), **sections)


def funnel(**changes: Any) -> data.Funnel:
    steps = [data.FunnelStep("fetch", 10, 8, {"dead": 2}), data.FunnelStep("f", 8, 4, {"low": 4})]
    return dataclasses.replace(data.Funnel("a", 10, steps, 7, repeats={1: 2, 2: 1, 3: 1}), **changes)


def overlap(*common: list[int]) -> data.Overlap:
    return data.Overlap(["a", "b"][: len(common)], list(common))


POOL = data.Pool(10, 8, {"dead": 2})


def test_what_adds_up_is_shown() -> None:
    check_report(
        report(
            pool=POOL,
            funnels=[funnel()],
            overlap=overlap([4, 2], [2, 3]),
            quotas=[data.Quotas("a", "f", "cluster", [data.Group("0", 8, 4)])],
            leakage=[data.Leakage("a", "f", [data.LeakSet("s", "", 3, 3, 8)], 4, 8)],
            galleries=[data.Gallery("a", "f", dropped_total=4, kept_total=4)],
        )
    )


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"funnels": [funnel(samples=8)]}, "repeat to 7 samples, not 8"),
        ({"funnels": [funnel(samples=3, repeats={})]}, "3 samples of 4 rows"),
        ({"funnels": [funnel(repeats={1: 3, 4: 1, 2: 1})]}, "multiplicities of 5 rows, 4 are kept"),
        ({"funnels": [funnel(repeats={0: 1, 1: 2, 5: 1})]}, "kept less than once"),
        ({"funnels": [funnel()], "pool": data.Pool(10, 7, {"dead": 3})}, "8 rows come out of 'fetch', the pool has 7"),
        ({"funnels": [funnel()], "pool": data.Pool(10, 8, {"other": 2})}, "is not what failed in the pool"),
        ({"overlap": overlap([4, 2], [1, 3])}, "1 rows one way, 2 the other"),
        ({"overlap": overlap([4, 4], [4, 3])}, "more than the smaller one has"),
        ({"overlap": data.Overlap(["a", "b"], [[1]])}, "not 2 x 2"),
        ({"overlap": data.Overlap(["a", "a"], [[1, 1], [1, 1]])}, "there twice"),
        ({"overlap": overlap([5]), "funnels": [funnel()]}, "has 5 rows, its funnel keeps 4"),
        ({"quotas": [data.Quotas("a", "f", "g", [data.Group("x", 3, 4)])]}, "'x' keeps 4 of 3"),
        (
            {"quotas": [data.Quotas("a", "f", "g", [data.Group("x", 9, 4)])], "funnels": [funnel()]},
            "4 of 9 rows in groups, the filter keeps 4 of 8",
        ),
        (
            {"leakage": [data.Leakage("a", "f", [], 3, 8)], "funnels": [funnel()]},
            "3 of 8 dropped, in its funnel 4 of 8",
        ),
        ({"leakage": [data.Leakage("a", "f", [data.LeakSet("s", "", 2, 3)], 3, 8)]}, "3 of 2 images of 's'"),
        ({"leakage": [data.Leakage("a", "f", [data.LeakSet("s", rows=9)], 3, 8)]}, "9 copies of 's' among 8"),
        ({"galleries": [data.Gallery("a", "f", dropped_total=5)], "funnels": [funnel()]}, "5 dropped, in its funnel 4"),
    ],
)
def test_what_does_not_add_up_is_refused(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        check_report(report(**sections))


# --- overlaps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 8, 30])
def test_every_pair_of_subsets_is_a_cell_with_a_sentence(n: int) -> None:
    names = [f"s{i}" for i in range(n)]
    section = overlap_section(subsets.overlap_of(names, [40 * (i + 1) for i in range(n)], 4000))
    assert [len(view.content.rows) for view in section.content["views"]] == [n, n, n]
    for view in section.content["views"]:
        for i, row in enumerate(view.content.rows):
            assert len(row) == n
            assert all(names[i] in cell.says and names[j] in cell.says for j, cell in enumerate(row))
            assert row[i].shade == "q10"
    assert section.content["named"] == (n <= 7)


def test_shares_that_are_nearly_nothing_or_nearly_all_do_not_read_as_such() -> None:
    big = overlap_section(overlap([100_000, 1], [1, 1]))
    share, rows, jaccard = (view.content.rows for view in big.content["views"])
    assert [[cell.text for cell in row] for row in share] == [["100", "<1"], ["100", "100"]]
    assert rows[0][0].text == "100k"
    assert jaccard[0][1].text == "0.00"
    almost = overlap_section(overlap([1000, 999], [999, 999])).content["views"][0].content.rows
    assert almost[0][1].text == ">99"
    nothing = overlap_section(overlap([0, 0], [0, 0])).content["views"]
    assert [view.content.rows[0][1].text for view in nothing] == ["–", "0", "–"]


def test_hostile_names_of_thirty_subsets_are_text() -> None:
    page = render(report(overlap=subsets.many_subsets(30)))
    assert subsets.HOSTILE not in page
    assert page.count("&lt;/td&gt;&lt;script&gt;window.pwned=1") > 30


# --- repeats, quotas, thresholds ---------------------------------------------------------------------


@given(st.dictionaries(st.integers(1, 5000), st.integers(1, 9), max_size=40))
def test_bars_of_repeats_lose_no_row(repeats: dict[int, int]) -> None:
    bars = repeat_bars(repeats)
    assert sum(n for _, n in bars) == sum(repeats.values())
    assert len(bars) <= 14
    ends = [int(label.rstrip("×").split("–")[-1]) for label, _ in bars]
    assert ends == sorted(set(ends))


def test_many_multiplicities_are_ranges() -> None:
    assert repeat_bars({1: 5, 2: 3}) == [("1×", 5), ("2×", 3)]
    many = repeat_bars(dict.fromkeys(range(1, 18), 1))
    assert many == [("1×", 1), ("2×", 1), ("3–4×", 2), ("5–8×", 4), ("9–16×", 8), ("17–32×", 1)]


def test_few_groups_are_lines_and_many_a_plot() -> None:
    def groups(n: int) -> data.Quotas:
        return data.Quotas("a", "f", "language", [data.Group(f"g{i}", 10, i % 11) for i in range(n)])

    few, many = quota_view(groups(LISTED), "p"), quota_view(groups(300), "p")
    assert few.plot is None
    assert many.plot is not None
    assert few.says == "111 of 240 rows kept in 24 groups by language; 2 kept whole, 3 dropped whole."
    assert sum(many.plot.figure["data"][0]["y"]) == sum(i % 11 for i in range(300))
    assert many.plot.table.rows[-1][0] == "and 100 more, in report.json"
    assert "1 group by language;" in quota_view(groups(1), "p").says


def test_a_subset_that_cuts_a_column_twice_has_two_tabs() -> None:
    splits = [
        data.Split("a", [0.2, 0.8], [1], [0], filter="1-range"),
        data.Split("a", [0.5], [1], [0], filter="2-threshold"),
        data.Split("b", [0.1, 0.3, 0.4, 7.0], [1], [0], groups=30),
    ]
    plots = histogram_plots(data.Histogram("c", [0.0, 1.0], [2], splits), "p")
    assert [plot.title for plot in plots] == ["a · 1-range", "a · 2-threshold", "b"]
    assert len(plots[0].figure["layout"]["shapes"]) == 6  # what lies off the axis is not drawn
    named = [a["text"] for a in plots[2].figure["layout"]["annotations"]]
    assert named == ["b 0.1"]  # of groups the ends are named; one is off the axis
    assert "its 30 groups" in plots[2].says
