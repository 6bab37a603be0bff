"""What the report shows of scores: it adds up with the rest of the page, it stays readable, and text stays text."""

import dataclasses
import json
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import DataError
from curate.eval.report import Report, data, marks, quantity
from curate.eval.report.build import machine_readable, render
from curate.eval.report.check import check_report
from curate.eval.report.facts import FEW, LINES, TEXT, fact_lines
from curate.eval.report.learned import curve_plot, includes_zero, learned_section, signed, weight_form
from curate.eval.report.networks import networks_plot
from curate.eval.report.scores import SMALL_BINS, scores_section, small_histogram

HEADER = data.Header("x")
SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))


@pytest.fixture(scope="module")
def sample() -> Report:
    return SAMPLE["make_report"]()


def text_of(page: str) -> str:
    """The page without its markup and code, white space folded."""
    page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)).replace("\u202f", " ")


# --- what does not add up is refused ---------------------------------------------------------------

METRIC = data.Metric("m", "m")
HALF = data.Estimate(0.5, 0.4, 0.6)


def networks(*found: data.FilterNetwork, pool: int = 10, **more: Any) -> Report:
    return Report(HEADER, networks=data.FilterNetworks([METRIC], found, pool), **more)


def kept(n: int, **scores: data.Estimate) -> data.FilterNetwork:
    return data.FilterNetwork("dfn", subsets=[data.KeptBy("a", n, scores=scores)])


def look(rows: int, values: int, **nulls: int) -> Report:
    return Report(HEADER, looks=[data.Look("clip", "encoder", rows, [data.Tally("pictures", values, nulls)])])


def learned(**changes: Any) -> Report:
    return Report(HEADER, learned=[data.Learned("mix", "fixed", **changes)])


def words(distinct: int, others: int, missing: int = 0) -> Report:
    return Report(HEADER, pool=data.Pool(10, 10), commonest=[data.Commonest("w", {"a": 6}, distinct, others, missing)])


FUNNEL = [data.Funnel("a", 10, [data.FunnelStep("f", 10, 4, {"low": 6})])]
BOARD = data.Leaderboard([METRIC], [data.Arm("a", {"m": data.Estimate(0.7)})])


@pytest.mark.parametrize(
    ("report", "words_of_it"),
    [
        (networks(kept(11)), "keeps 11 of 10"),
        (networks(kept(5), funnels=FUNNEL), "keeps 5 rows, its funnel 4"),
        (dataclasses.replace(networks(kept(4)), pool=data.Pool(11, 11)), "their pool has 10 rows, the pool 11"),
        (networks(kept(4, m=HALF), leaderboard=BOARD), "m is 0.5, on the leaderboard 0.7"),
        (networks(kept(4, other=HALF)), "which is no metric"),
        (networks(data.FilterNetwork("dfn"), data.FilterNetwork("dfn")), "'dfn' is there twice"),
        (networks(data.FilterNetwork("dfn", scores={"m": data.Estimate(0.5, 0.6, 0.7)})), "is not between 0.6 and 0.7"),
        (networks(data.FilterNetwork("dfn", scores={"m": data.Estimate(0.5, 0.4)})), "needs both bounds"),
        (look(10, 7, corrupt=2), "7 pictures and 2 rows without are not its 10 rows"),
        (look(10, 12, corrupt=-2), "a negative count of pictures"),
        (dataclasses.replace(look(10, 10), pool=data.Pool(11, 11)), "10 rows, the pool has 11"),
        (words(2, 3), "9 rows, the pool has 10 fetched ones"),
        (words(1, 4), "1 distinct values, 1 shown, 4 rows with others"),
        (words(3, 5, -1), "a negative count"),
        (learned(weights=[data.Weight("a", 1.0), data.Weight("a", 2.0)]), "'a' is there twice"),
        (learned(weights=[data.Weight("a", 1.0, 2.0, 3.0)]), "1.0 is not between 2.0 and 3.0"),
        (learned(weights=[data.Weight("a", float("nan"))]), "nan is no number"),
        (learned(weights=[data.Weight("a", 1.0, std=-1.0)]), "a standard deviation of -1.0"),
        (learned(curves=[data.LearningCurve(0, [1, 2], [1.0])]), "2 steps, 1 losses"),
        (learned(auc=1.5), "an AUC of 1.5"),
        (Report(HEADER, score_facts=[data.ScoreFacts("a", "t"), data.ScoreFacts("a", "t")]), "'a' is there twice"),
        (Report(HEADER, histograms=[data.Histogram("c", [0, 1], [1], missing=-3)]), "-3 rows without a value"),
        (Report(HEADER, histograms=[data.Histogram("c", [0, 1], [1], low=-0.1)]), "lowest value -0.1 is off the axis"),
        (Report(HEADER, histograms=[data.Histogram("c", [0, 1], [1], high=2.0)]), "highest value 2.0 is off the axis"),
        (
            Report(HEADER, histograms=[data.Histogram("c", [0, 1], [1])], commonest=[data.Commonest("c", {"a": 1}, 1)]),
            "distribution of column 'c' is there twice",
        ),
    ],
)
def test_data_about_scores_that_does_not_add_up_is_refused(report: Report, words_of_it: str) -> None:
    with pytest.raises(DataError, match=re.escape(words_of_it)):
        check_report(report)


def test_what_adds_up_is_shown() -> None:
    check_report(networks(kept(4, m=HALF), funnels=FUNNEL, leaderboard=None))
    check_report(look(10, 7, corrupt=2, missing=1))
    check_report(words(3, 4))
    check_report(learned(weights=[data.Weight("a", 1.0, 0.5, 1.5, 0.0, 0.0, 0)], auc=0.5))


# --- filter networks -------------------------------------------------------------------------------


def test_a_network_stands_beside_what_it_keeps(sample: Report) -> None:
    shown = text_of(render(sample))
    start = shown.index("Filter networks", shown.index("How each model learned"))
    section = shown[start : shown.index("What the input named")]
    assert "trained here, RN-mini-32, 300 distinct pairs, 19,200 samples seen" in section
    assert "68.4 % [64.0, 72.5]" in section
    assert "Chance level 10.0 %" in section
    arm = next(a for a in sample.leaderboard.arms if a.name == "curated").scores["digits/zero_shot"]  # type: ignore[union-attr]
    assert f"{100 * arm.mean:.1f} %" in section
    assert "no subset rests on it" in section
    assert "better filter" in section


def test_without_models_the_own_accuracy_stands_alone(sample: Report) -> None:
    assert sample.networks is not None
    found = [
        dataclasses.replace(n, subsets=[dataclasses.replace(s, scores={}) for s in n.subsets])
        for n in sample.networks.networks
    ]
    alone = dataclasses.replace(sample.networks, networks=found, control="", control_scores={})
    page = render(dataclasses.replace(sample, networks=alone, leaderboard=None, headline=None, curves=()))
    assert "plot-networks-0" not in page
    assert "no model was trained on it" in page
    assert "68.4" in page


@pytest.mark.parametrize(("networks_with_models", "drawn"), [(0, False), (1, False), (2, True)])
def test_two_networks_make_a_scatter(sample: Report, networks_with_models: int, drawn: bool) -> None:
    assert sample.networks is not None
    few = dataclasses.replace(sample.networks, networks=sample.networks.networks[:networks_with_models])
    plot = networks_plot(few, few.metrics[0], "p")
    assert (plot is not None) == drawn
    if plot is not None:
        symbols = [trace["marker"]["symbol"] for trace in plot.figure["data"]]
        assert len(set(symbols)) == len(symbols)  # told apart without colour
        assert [row[:2] for row in plot.table.rows] == [["curated", "dfn"], ["clip_top", "big_clip"]]


# --- learned weights -------------------------------------------------------------------------------


def test_weights_go_by_size_and_share_a_scale_with_zero() -> None:
    weights = [data.Weight("a", 0.1, -0.1, 0.3), data.Weight("b", -2.0, -3.0, -1.0), data.Weight("c", 1.5)]
    section = learned_section([data.Learned("mix", "logistic", weights)])
    panel = section.content["panels"][0].content
    assert [w.column for w, *_ in panel["weights"]] == ["b", "c", "a"]
    assert [told for _, *told in panel["weights"]] == [
        ["−2.00", "[−3.00, −1.00]", False],
        ["+1.50", "no interval", False],
        ["+0.10", "[−0.10, +0.30]", True],
    ]
    axis: marks.Scale = panel["axis"]
    assert all(axis.holds(v) for v in (-3.0, 0.0, 1.5))


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=30))
def test_weights_of_any_size_are_told_without_losing_their_sign(values: list[float]) -> None:
    form = weight_form([data.Weight(str(i), v) for i, v in enumerate(values)])
    largest = max(values, key=abs)
    told = float(signed(largest, form).replace(quantity.MINUS, "-"))
    assert told == pytest.approx(largest, rel=0.06)
    for value in values:
        text = signed(value, form)
        assert len(text) < 16
        assert text[0] in f"+{quantity.MINUS}" or float(text) == 0


def test_an_interval_that_touches_zero_includes_it() -> None:
    assert includes_zero(data.Weight("a", 1.0, 0.0, 2.0))
    assert not includes_zero(data.Weight("a", 1.0, 0.1, 2.0))
    assert not includes_zero(data.Weight("a", 0.0))


def test_learning_curves_of_seeds_and_their_mean() -> None:
    curves = [data.LearningCurve(0, [1, 2, 3], [4.0, 2.0, 1.0]), data.LearningCurve(1, [1, 3, 4], [2.0, 3.0, 9.0])]
    plot = curve_plot(data.Learned("mix", "m_flyt", curves=curves), "p")
    *seeds, mean = plot.figure["data"]
    assert [t["name"] for t in seeds] == ["seed 0", "seed 1"]
    assert (mean["x"], mean["y"]) == ([1, 3], [3.0, 2.0])
    assert [row[0] for row in plot.table.rows] == ["0", "1"]
    empty = data.Learned("mix", "flyt", curves=[data.LearningCurve(0, [], [])])
    assert learned_section([empty]).plots == []
    json.dumps(plot.figure, allow_nan=False)


# --- many columns ----------------------------------------------------------------------------------


def test_thirty_columns_are_small_and_those_that_a_subset_cuts_large(sample: Report) -> None:
    section = scores_section(sample)
    assert [tab.title for tab in section.content["columns"]] == ["dfn_score"]
    assert len(section.content["small"]) == len(sample.histograms) - 1 > 25
    assert len(section.plots) == 2


def test_few_columns_are_all_large_and_many_that_are_cut_are_behind_tabs(sample: Report) -> None:
    few = dataclasses.replace(sample, histograms=sample.histograms[:3])
    assert len(scores_section(few).content["columns"]) == 3
    assert scores_section(few).content["small"] == []
    cut = [dataclasses.replace(h, splits=[data.Split("curated", [0.5])]) for h in sample.histograms[1:11]]
    section = scores_section(dataclasses.replace(sample, histograms=cut))
    assert section.content["tabbed"]
    page = render(dataclasses.replace(sample, histograms=cut))
    assert page.count('aria-label="Score that subsets cut"') == 1
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=130),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e6),
)
def test_small_histograms_show_every_row(counts: list[int], low: float, span: float) -> None:
    bins = len(counts)
    edges = [low + span * i / bins for i in range(bins + 1)]
    small = small_histogram(data.Histogram("c", edges, counts))
    assert len(small.bars) <= SMALL_BINS
    assert len(small.bars) > 0 or not any(counts)
    for bar in small.bars:
        assert -1e-6 <= bar.x <= 100
        assert bar.x + bar.width <= 100.01
        assert 0 < bar.height <= 100
        assert bar.wrong == 0
    assert len(small.table.rows) == bins
    assert f"over {sum(counts):,} rows" in small.says


def test_a_column_of_one_value_says_so() -> None:
    assert small_histogram(data.Histogram("c", [0.5, 1.0, 1.5], [0, 9], low=1.0, high=1.0)).ends == ["always 1"]
    assert small_histogram(data.Histogram("c", [0.0, 1.0, 2.0], [3, 9])).ends == ["0", "2"]


# --- facts -----------------------------------------------------------------------------------------

FACTS = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
        max_leaves=30,
    ),
)


@given(FACTS)
def test_any_facts_become_a_few_short_lines(facts: Mapping[str, Any]) -> None:
    told = fact_lines(facts)
    assert len(told) <= LINES + 1
    assert all(isinstance(text, str) and len(text) <= TEXT + 40 for line in told for text in line)


def test_facts_by_hand() -> None:
    told = dict(
        fact_lines(
            {
                "model_file": "a.onnx",
                "tau": 0.01,
                "rows": 12345,
                "one_batch": False,
                "nothing": None,
                "train": {"steps": 5, "lr": 0.5},
                "many": list(range(20)),
                "no": [],
                "empty": {},
                "deep": {"a": {"b": {"c": 1}}},
            }
        )
    )
    assert told == {
        "model file": "a.onnx",
        "tau": "0.01",
        "rows": "12,345",
        "one batch": "no",
        "nothing": "–",
        "train · steps": "5",
        "train · lr": "0.5",
        "many": ", ".join(str(i) for i in range(FEW)) + " … and 12 more",
        "no": "none",
        "empty": "none",
        "deep · a · b": "c: 1",
    }
    assert fact_lines({str(i): i for i in range(LINES + 5)})[-1] == ("more", "5 further facts, in report.json")


def test_names_of_scores_stay_text(sample: Report) -> None:
    page = render(sample)
    hostile = "</td><script>window.pwned=1</script>"
    assert hostile not in page
    assert page.count("&lt;/td&gt;&lt;script&gt;window.pwned=1&lt;/script&gt;") > 5
    told = machine_readable(sample)
    assert told["score_facts"][3]["name"] == hostile
    json.dumps(told, allow_nan=False)
