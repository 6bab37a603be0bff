"""The report's own table of models: the main metrics of many, and what cannot be told from chance."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curate.errors import DataError
from curate.eval.report import build_report, data
from curate.eval.report.sections import sections


def load_sample() -> Any:
    spec = importlib.util.spec_from_file_location("report_sample", Path(__file__).with_name("report_sample.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


METRICS = [data.Metric(f"m{i}", f"set{i}, zero-shot top-1", chance=0.1 if i % 2 else None) for i in range(9)]


def a_report(**changes: Any) -> data.Report:
    def arm(name: str, value: float, **more: Any) -> data.Arm:
        return data.Arm(name, {m.name: data.Estimate(value, None, None, [value]) for m in METRICS}, **more)

    arms = [arm("good", 0.7), arm("lost", 0.11, like_chance=["m1", "m3"])]
    table = [data.PerClass(m.label, ["a", "b"], {"good": [0.5, 0.9]}) for m in METRICS]
    board = data.Leaderboard(METRICS, arms, "good", per_class=table, **changes)
    return replace(load_sample().make_report(), leaderboard=board, headline=None, evaluation="evaluation/index.html")


def models_of(report: data.Report, tmp_path: Path) -> str:
    page = Path(build_report(report, str(tmp_path))).read_text()
    found = re.search(r'<section id="models".*?</section>', page, re.S)
    assert found
    return found.group(0)


def test_main_metrics_are_shown_and_the_others_are_a_link_away(tmp_path):
    report = a_report(shown=["m0", "m1", "m4"])
    content = next(s for s in sections(report) if s.id == "models").content
    assert [p.title for p in content["panels"]] == [METRICS[i].label for i in (0, 1, 4)]
    assert [p.title for p in content["per_class"]] == [METRICS[i].label for i in (0, 1, 4)]
    text = models_of(report, tmp_path)
    assert "6 more main metrics" in text
    assert 'href="evaluation/index.html"' in text
    assert "set5" not in text


def test_all_are_shown_where_nothing_was_chosen(tmp_path):
    text = models_of(a_report(), tmp_path)
    assert all(m.label in text for m in METRICS)
    assert "more main metrics" not in text


def test_what_looks_like_chance_looks_it(tmp_path):
    text = models_of(a_report(shown=["m0", "m1"]), tmp_path)
    table = text[: text.index("</table>")]
    assert re.search(r"<tfoot>.*chance.*10\.0", table, re.S)
    good, lost = re.findall(r"<tr>\s*<th scope=\"row\" data-value.*?</tr>", table, re.S)
    assert "near" not in good
    assert lost.count('class="n near"') == 1
    assert text.count("like chance") == 1  # in the panel of the one metric that is shown
    assert "not told apart from chance" in text


def test_a_metric_that_is_none_cannot_be_shown(tmp_path):
    with pytest.raises(DataError, match="'nope' is to be shown"):
        build_report(a_report(shown=["nope"]), str(tmp_path))
