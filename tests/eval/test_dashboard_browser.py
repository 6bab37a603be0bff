"""The dashboard in a real browser: it computes what Python does, keeps its state in the link, and stays harmless."""

import csv
import importlib.util
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.eval.comparison.statistics import mean_over_seeds, paired_difference
from curate.eval.report.dashboard import Dashboard, build_dashboard
from curate.eval.report.dashboard.data import Arm


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{name}_of_dashboard", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


driving = load("test_report_browser")  # one way to drive a browser and to measure contrast
CONTRAST, PHONE, WIDE, Visit = driving.CONTRAST, driving.PHONE, driving.WIDE, driving.Visit
SAMPLE = load("dashboard_sample")
pytestmark = driving.pytestmark


@pytest.fixture(scope="module")
def sample() -> Dashboard:
    return SAMPLE.make_dashboard()


@pytest.fixture(scope="module")
def url(sample: Dashboard, tmp_path_factory: pytest.TempPathFactory) -> str:
    return Path(build_dashboard(sample, str(tmp_path_factory.mktemp("dashboard")))).as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=driving.CHROMIUM, args=driving.QUIET)
        yield chromium
        chromium.close()


def names(page: Any) -> list[str]:
    return page.locator("#leaderboard table tbody th .t").all_inner_texts()


def column(page: Any, key: str) -> list[str]:
    """First line of each cell of a column, without marks."""
    cells = page.evaluate(
        "key => [...document.querySelectorAll('#leaderboard tbody td')].filter(c => c.dataset.column === key)"
        ".map(c => (c.querySelector('span') ?? c).textContent)",
        key,
    )
    return cells


def values(arm: Arm, measures: list[str]) -> list[float] | None:
    """Mean over measures by seed, as Python has it; None where one is missing."""
    if any(m not in arm.scores for m in measures):
        return None
    return [float(np.mean([arm.scores[m].seeds[s] for m in measures])) for s in range(len(arm.seeds))]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_reads_well_and_does_nothing_else(browser: Any, url: str, size: dict[str, int], scheme: str) -> None:
    with Visit(browser, url, size, scheme) as visit:
        assert visit.overflow() <= 0
        assert visit.page.evaluate(CONTRAST) == []
        visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        visit.page.locator("#pick-view").select_option("differences")
        assert visit.overflow() <= 0
        assert visit.page.evaluate(CONTRAST) == []
        visit.page.locator("#seeds-apart").check()
        assert visit.page.locator("#leaderboard tbody tr").count() == 60
        assert visit.overflow() <= 0
        visit.check_quiet()


def test_choosing_tasks_recomputes_mean_rank_and_win_rate(browser: Any, url: str, sample: Dashboard) -> None:
    chosen = [m.name for m in sample.measures if m.groups[0] == SAMPLE.SHIFTS]
    with Visit(browser, url, WIDE, "light") as visit:
        page = visit.page
        page.locator(".chooser > summary").click()
        page.locator(".wide-tools").get_by_role("button", name="none").click()
        page.get_by_role("button", name=f"all of {SAMPLE.SHIFTS}").click()
        assert "6 of 41" in page.locator(".chooser > summary").inner_text()
        shown = names(page)
        by_name = dict(
            zip(
                page.evaluate("() => JSON.parse(document.getElementById('data').textContent).arms.map(a => a.name)"),
                sample.arms,
                strict=True,
            )
        )
        arms = [by_name[name] for name in shown]
        means = {a.name: values(a, chosen) for a in sample.arms}
        there = [a.name for a in sample.arms if means[a.name]]
        averages = {name: float(np.mean(means[name] or [])) for name in there}
        expected = [f"{100 * averages[a.name]:.1f}" if a.name in averages else "5 of 6" for a in arms]
        assert column(page, "mean") == expected
        assert [a.name for a in arms if a.name in averages] == sorted(there, key=lambda n: -averages[n])
        per_task = {
            m: {
                a.name: float(np.mean([v for v in a.scores[m].seeds if v is not None]))
                for a in sample.arms
                if m in a.scores and a.name in there
            }
            for m in chosen
        }

        def rank(task: dict[str, float], name: str) -> float:
            better = sum(v > task[name] for v in task.values())
            return better + (sum(v == task[name] for v in task.values()) + 1) / 2

        ranks = {n: float(np.mean([rank(t, n) for t in per_task.values()])) for n in there}
        wins = {n: float(np.mean([(len(t) - rank(t, n)) / (len(t) - 1) for t in per_task.values()])) for n in there}
        got = dict(zip(shown, zip(column(page, "rank"), column(page, "win"), strict=True), strict=True))
        for name, arm in by_name.items():
            if arm.name in ranks:
                assert abs(float(got[name][0]) - ranks[arm.name]) < 0.0051
                assert abs(float(got[name][1]) - 100 * wins[arm.name]) < 0.051
        visit.check_quiet()


def test_intervals_and_paired_differences_are_those_of_python(browser: Any, url: str, sample: Dashboard) -> None:
    chosen = [m.name for m in sample.measures if m.groups[0] == SAMPLE.RETRIEVAL]
    with Visit(browser, url + "#tasks=" + ",".join(chosen), WIDE, "light") as visit:
        page = visit.page
        first, other = values(sample.arms[0], chosen), values(sample.arms[6], chosen)
        assert first
        assert other
        row = page.locator("#leaderboard tbody tr", has_text=sample.arms[6].name)
        interval = mean_over_seeds(other).ci95
        assert interval
        assert row.locator("td[data-column=mean] small").inner_text() == "[{:.1f}, {:.1f}]".format(
            *(100 * x for x in interval)
        )
        page.locator("#pick-view").select_option("differences")
        row = page.locator("#leaderboard tbody tr", has_text=sample.arms[6].name)
        paired = paired_difference(dict(enumerate(other)), dict(enumerate(first)))
        mean, low, high = paired.mean, *(paired.ci95 or (0, 0))
        said = row.locator("td[data-column=mean]").inner_text().replace("\u2212", "-")
        assert f"{100 * mean:+.1f}" in said
        assert f"[{100 * low:+.1f}, {100 * high:+.1f}]" in said
        assert (row.locator("td[data-column=mean] .up").count() == 1) == (low > 0)
        visit.check_quiet()


def test_named_means_stand_only_when_complete(browser: Any, url: str) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        assert set(column(visit.page, "agg:VTAB-1k mean of 19")) == {"19 needed, 1 there"}
        average = column(visit.page, "agg:DataComp average of 38")
        assert average.count("38 needed, 36 there") == 1
        assert sum(bool(re.fullmatch(r"\d+\.\d", v)) for v in average) == 19
        visit.page.locator(".chooser > summary").click()
        visit.page.locator(".wide-tools").get_by_role("button", name="none").click()
        assert column(visit.page, "agg:DataComp average of 38").count("38 needed, 36 there") == 1  # whatever is chosen
        assert set(column(visit.page, "mean")) == {"–"}
        visit.check_quiet()


def test_filter_by_words_narrows_what_all_and_none_touch(browser: Any, url: str) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        page = visit.page
        page.locator(".chooser > summary").click()
        page.get_by_label("Filter tasks by words").fill("imagenet sketch")
        assert page.locator(".choices label:visible").all_inner_texts() == ["ImageNet Sketch"]
        page.locator(".wide-tools").get_by_role("button", name="none").click()
        assert "38 of 41" in page.locator(".chooser > summary").inner_text()
        visit.check_quiet()


def test_sorting_by_mouse_and_keyboard(browser: Any, url: str) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        page = visit.page
        key = "m:imagenet_1k/zero_shot/acc1"
        page.locator(f"th[data-column='{key}'] button").click()
        numbers = [float(v) for v in column(page, key)]
        assert numbers == sorted(numbers, reverse=True)
        assert page.locator("#leaderboard th[aria-sort=descending]").count() == 1
        page.keyboard.press("Enter")  # the header kept the focus
        numbers = [float(v) for v in column(page, key)]
        assert numbers == sorted(numbers)
        assert "order=ascending" in page.evaluate("location.hash")
        visit.check_quiet()


def test_every_number_tells_where_it_comes_from(browser: Any, url: str) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        page = visit.page
        page.locator("#leaderboard td[data-column='m:imagenet_1k/zero_shot/acc1']").nth(3).hover()
        told = page.locator("#provenance").inner_text()
        for words in (
            "80 prompts",
            "version",
            "00c0ffee",
            "005eed00",
            "50,000",
            "seeds",
            "0, 1, 2",
            "Student's t over seeds",
        ):
            assert words in told
        page.mouse.move(5, 5)
        page.locator("#leaderboard table button.sort").first.focus()
        for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.column") == "win"
        page.keyboard.press("End")
        assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "provenance"
        assert "against no filter" in page.locator("#provenance").inner_text()
        page.keyboard.press("Escape")
        assert page.locator("#provenance").is_hidden()
        page.locator("#seeds-apart").check()
        page.locator("#leaderboard td[data-column='m:imagenet_1k/zero_shot/acc1']").first.hover()
        assert "Wilson, 50,000 test images" in page.locator("#provenance").inner_text()
        visit.check_quiet()


def test_a_link_shows_the_same_page(browser: Any, url: str) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        page = visit.page
        page.locator(".chooser > summary").click()
        page.get_by_role("button", name="none of Capability").click()
        page.locator("#pick-control").select_option(label="image-based")
        page.locator("#pick-view").select_option("differences")
        page.locator("#pick-x").select_option("fact:cost")
        page.locator("#pick-show").select_option("only-a-wrong")
        page.locator("nav a", has_text="Mistakes").click()
        link = page.url
        told = page.locator("#leaderboard table").inner_text()
        cards = page.locator("#mistakes li").count()
    assert "control=image-based" in link
    with Visit(browser, link, WIDE, "light") as visit:
        page = visit.page
        assert page.locator("#leaderboard table").inner_text() == told
        assert page.locator("#pick-x").input_value() == "fact:cost"
        assert page.locator("#mistakes li").count() == cards
        assert page.evaluate("document.activeElement.id") == "mistakes"
        page.evaluate("location.hash = 'view=values&control=nobody&x=%E0%A4%A&tasks=none-such&page=-3&__proto__=1'")
        page.wait_for_selector("#leaderboard td.lacks", state="attached")
        assert set(column(page, "mean")) == {"–"}
        visit.check_quiet()


def test_scatter_axes_and_keyboard(browser: Any, url: str, sample: Dashboard) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        page = visit.page
        assert page.locator("#scatter .point").count() == 19  # one arm lacks a task, so it has no mean
        before = page.locator("#scatter .point").first.get_attribute("data-px")
        page.locator("#log-x").uncheck()
        assert page.locator("#scatter .point").first.get_attribute("data-px") != before
        page.locator("#pick-x").select_option("m:imagenet_1k/zero_shot/acc1")
        page.locator("#pick-y").select_option("m:imagenet_sketch/zero_shot/acc1")
        assert page.locator("#scatter .point").count() == 20
        assert page.locator("#scatter .robust").count() == 1
        assert page.locator("#scatter .error-bar").count() == 40
        page.locator("#scatter .point").first.focus()
        page.keyboard.press("ArrowRight")
        told = page.locator("#provenance").inner_text()
        assert "effective robustness" in told
        assert "test samples" in told
        page.locator("#scatter summary").click()
        assert page.locator("#scatter .numbers tbody tr").count() == 20
        visit.check_quiet()


def test_mistakes_are_filtered_and_walked_by_keyboard(browser: Any, url: str, sample: Dashboard) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        page = visit.page
        page.locator("#mistakes-a").select_option(label="basic")
        page.locator("#mistakes-b").select_option(label="text-based")
        page.locator("#pick-show").select_option("only-a-wrong")
        expected = [m.key for m in sample.mistakes if not m.guesses["basic"].right and m.guesses["text-based"].right]
        assert page.locator("#mistakes li").evaluate_all("all => all.map(c => c.dataset.key)") == expected[:24]
        page.locator("#mistakes li").first.focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.dataset.key") == expected[1]
        page.locator("#pick-show").select_option("all")
        page.locator("#mistakes li").first.focus()
        page.keyboard.press("PageDown")
        assert page.evaluate("document.activeElement.dataset.key") == "s0000024"
        page.get_by_label("Filter by label").fill("hyperlink")
        assert 0 < page.locator("#mistakes li").count() < 24
        visit.check_quiet()


def test_hostile_names_and_captions_stay_text(browser: Any, url: str) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        page = visit.page
        assert page.locator("#retrieval .asked").inner_text() == SAMPLE.HOSTILE
        page.locator("#retrieval").get_by_role("button", name="next").click()
        page.locator("#retrieval .answers").focus()
        page.keyboard.press("ArrowRight")
        assert "⟨U+202E⟩" in page.locator("#retrieval .asked").inner_text()
        assert page.locator("#retrieval .asked .ctl").count() == 3
        assert page.locator("#retrieval .hits li.right").count() <= 2
        page.get_by_label("Filter classes").fill("onerror")
        assert page.locator("#classes tbody th").inner_text() == SAMPLE.HOSTILE
        page.locator("#confusion-arm").select_option(label="basic")
        assert page.locator("#confusions .matrix tbody td").count() == 100
        assert page.evaluate("[...document.images].every(i => i.src.startsWith('data:image/png'))")
        visit.check_quiet()


def test_tables_are_taken_away(browser: Any, url: str, sample: Dashboard) -> None:
    with Visit(browser, url, WIDE, "light", accept_downloads=True) as visit:
        page = visit.page
        with page.expect_download() as started:
            page.get_by_role("button", name="Download CSV").click()
        table = list(csv.reader(io.StringIO(Path(started.value.path()).read_text())))
        assert started.value.suggested_filename == "leaderboard.csv"
        assert len(table) == 21
        assert len({len(line) for line in table}) == 1
        assert "'=HYPERLINK(0)" in [line[0] for line in table]
        at = table[0].index("ImageNet 1k")
        arm = next(line for line in table if line[0] == "basic")
        assert float(arm[at]) == pytest.approx(
            float(np.mean([v for v in sample.arms[2].scores["imagenet_1k/zero_shot/acc1"].seeds if v is not None])),
            abs=1e-7,
        )
        page.locator("summary", has_text="Table as text").click()
        page.locator(".take details").get_by_role("button", name="Markdown").click()
        text = page.locator(".take textarea").input_value()
        assert text.count("\n") == 22
        assert "\\<script\\>" in text
        visit.check_quiet()


def test_curves_and_groups(browser: Any, url: str) -> None:
    with Visit(browser, url, PHONE, "dark") as visit:
        page = visit.page
        assert page.locator("#curves path.curve").count() == 60
        page.locator("#curves .keys button").first.click()
        assert page.locator("#curves path.curve").count() == 57
        page.locator("#pick-curve").select_option("Scaling: loss")
        page.locator("#log-curve").check()
        assert page.locator("#curves path.curve").count() == 19
        worst = page.locator("#groups tbody tr").first
        assert "Africa" in worst.inner_text()
        assert "240" in worst.inner_text()
        assert page.locator("#funnels a").first.get_attribute("href") == "../run-00/report/index.html"
        assert visit.overflow() <= 0
        visit.check_quiet()


def test_theme_is_kept_and_paper_shows_everything(browser: Any, url: str) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        page = visit.page
        colour = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(colour)
        page.locator("button.theme").click()
        dark = page.evaluate(colour)
        assert dark != light
        page.reload()
        assert page.evaluate(colour) == dark
        page.emulate_media(media="print")
        assert page.locator(".picks").first.is_hidden()
        assert page.evaluate("document.querySelector('#leaderboard .box').scrollHeight <= innerHeight * 4")
        visit.check_quiet()


def test_one_model_of_one_run(browser: Any, tmp_path: Path) -> None:
    one = Path(build_dashboard(SAMPLE.make_dashboard(1, 1), str(tmp_path))).as_uri()
    with Visit(browser, one, PHONE, "light") as visit:
        page = visit.page
        assert page.locator("#leaderboard tbody tr").count() == 1
        assert page.locator("#seeds-apart").count() == 0
        assert page.locator("#mistakes-a").count() == 0
        page.locator("#leaderboard td[data-column='m:imagenet_1k/zero_shot/acc1']").hover()
        assert "Wilson" in page.locator("#provenance").inner_text()
        assert visit.overflow() <= 0
        assert page.evaluate(CONTRAST) == []
        visit.check_quiet()
