"""The scaling section: what it says of laws, predictions and crossings, and that it reads well in a browser."""

import dataclasses
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from curate.errors import DataError
from curate.eval.report import Report, build_report
from curate.eval.report.build import render
from curate.eval.report.check import check_report
from curate.eval.report.data import Header
from curate.eval.report.scaling_data import Scaling, ScalingCrossing
from curate.eval.report.scaling_plot import log_ticks, scaling_plot

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def _sample() -> Any:
    spec = importlib.util.spec_from_file_location("scaling", Path(__file__).with_name("report_sample_scaling.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scaling() -> Scaling:
    return _sample().make_scaling()


def page(scaling: Scaling) -> str:
    report = Report(Header("sweep"), scaling=scaling)
    check_report(report)
    return render(report)


def test_the_page_tells_exponents_predictions_and_crossings(scaling: Scaling) -> None:
    text = page(scaling)
    section = text[text.index('id="scaling"') : text.index("<footer>")]
    everything = scaling.panels[0].series[0]
    law = everything.laws[0]
    assert f"<b>{law.exponent.mean:.2f}</b>" in section
    assert f"[{law.exponent.low:.2f}, {law.exponent.high:.2f}]" in section
    ahead = everything.predictions[1]
    assert f"<b>{100 * ahead.error:.1f}\u202f%</b>" in section
    assert f"[{100 * ahead.low:.1f}, {100 * ahead.high:.1f}]" in section
    assert "no clear fall" in section
    assert "which lies beyond what was measured" in section
    assert "window.pwned" in section
    assert "<script>window.pwned" not in section


def test_machines_read_the_same(scaling: Scaling, tmp_path: Path) -> None:
    build_report(Report(Header("sweep"), scaling=scaling), str(tmp_path))
    told = json.loads((tmp_path / "report.json").read_text())["scaling"]["panels"][0]["series"][0]
    assert {"subset", "share", "samples", "distinct", "samples_seen"} <= set(told["points"][0])
    assert told["laws"][0]["exponent"]["mean"] == scaling.panels[0].series[0].laws[0].exponent.mean


def test_a_crossing_is_told_as_sure_as_it_is(scaling: Scaling) -> None:
    def told(share: float, high: float | None) -> str:
        crossing = ScalingCrossing("curated", "everything", 3400.0, 2000.0, high, share, True)
        panel = dataclasses.replace(scaling.panels[0], crossings=[crossing])
        return page(Scaling([panel]))

    assert "up to about 3.4k different samples, everything beyond [2k, 9k]." in told(0.99, 9000.0)
    assert "30\u202f% of the resamples do not cross, so it may not be so." in told(0.7, None)
    assert "[2k, or never]" in told(0.7, None)
    assert "up to about 3.4k" not in told(0.3, None)


def test_too_few_sizes_are_shown_without_a_law() -> None:
    few = _sample().make_scaling(seeds=1, sizes=(0.5, 1.0))
    text = page(few)
    assert "2 sizes: a power law needs at least 3." in text
    assert "not fitted" in text


def test_errors_of_nothing_are_drawn_nowhere(scaling: Scaling) -> None:
    panel = scaling.panels[0]
    series = panel.series[0]
    perfect = dataclasses.replace(series.points[-1].error, mean=0.0, low=0.0, high=0.0, seeds=[0.0])
    points = [*series.points[:-1], dataclasses.replace(series.points[-1], error=perfect)]
    shown = dataclasses.replace(panel, series=[dataclasses.replace(series, points=points)])
    plot = scaling_plot(shown, {}, "", "plot")
    dots = next(t for t in plot.figure["data"] if t["mode"] == "markers")
    assert dots["y"][-1] is None
    json.dumps(plot.figure, allow_nan=False)


def test_what_contradicts_itself_is_refused(scaling: Scaling) -> None:
    panel = scaling.panels[0]
    series = panel.series[0]
    for wrong in (
        dataclasses.replace(series, points=series.points[::-1]),
        dataclasses.replace(series, points=[]),
        dataclasses.replace(series, curve=[]),
        dataclasses.replace(series, curve=[dataclasses.replace(series.curve[0], low=0.99, error=0.5)]),
    ):
        with pytest.raises(DataError, match="scaling of 'everything'"):
            page(Scaling([dataclasses.replace(panel, series=[wrong], crossings=[])]))


@pytest.mark.parametrize(("low", "high"), [(0.05, 1.0), (0.31, 0.36), (1e-4, 1.0), (100, 2e6), (0.4, 0.41)])
def test_ticks_of_a_logarithmic_axis_are_few_and_within(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 1 <= len(ticks) <= 9
    assert all(low <= t <= high for t in ticks)
    assert ticks == sorted(set(ticks))


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium; set CHROMIUM to its path to run the browser tests")
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_it_reads_well_in_a_browser(scaling: Scaling, tmp_path: Path, width: int, scheme: Any) -> None:
    from playwright.sync_api import sync_playwright

    url = Path(build_report(Report(Header("sweep"), scaling=scaling), str(tmp_path))).as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme).new_page()
        noise: list[str] = []
        page.on("console", lambda m: noise.append(m.text))
        page.on("pageerror", lambda e: noise.append(str(e)))
        page.goto(url)
        page.locator("#plot-scaling-0").scroll_into_view_if_needed()
        page.wait_for_selector("#plot-scaling-0 .main-svg", state="attached")
        plot = page.locator("#plot-scaling-0")
        assert plot.locator(".points path.point").count() == 15
        assert plot.locator("path.js-line").count() == 9  # outline, curve and what lies ahead, for each
        assert plot.locator(".errorbars path.yerror").count() == 15
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        page.locator("[data-plot=plot-scaling-0]").first.click()
        assert plot.locator(".points path.point").count() == 10
        page.locator("#scaling [role=tab]").nth(1).click()
        page.wait_for_selector("#plot-scaling-1 .main-svg", state="attached")
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert page.evaluate("window.pwned === undefined")
        assert noise == []
        browser.close()
