"""The report in a real browser: quiet, harmless, readable in both themes and at both widths, and working."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curate.eval.report import Report, build_report
from curate.eval.report.data import Header

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium; set CHROMIUM to its path to run the browser tests"),
]

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-sync", "--no-first-run"]
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}

# Records policy violations from the first moment on.
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective + " " + e.blockedURI));
"""

# Text whose colour is too close to what lies behind it: [ratio, text] of each element below 4.5 (3 when large).
CONTRAST = """
() => {
  const parse = (c) => {
    const n = c.match(/[\\d.]+/g).map(Number);
    return c.startsWith("color(srgb") ? [n[0] * 255, n[1] * 255, n[2] * 255, n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1];
  };
  const over = (top, under) => under.map((v, i) => (i < 3 ? top[i] * top[3] + v * (1 - top[3]) : 1));
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const known = new Map();
  const behind = (el) => {
    if (!el) return [255, 255, 255, 1];
    if (!known.has(el)) known.set(el, over(parse(getComputedStyle(el).backgroundColor), behind(el.parentElement)));
    return known.get(el);
  };
  const bad = [];
  for (const el of document.querySelectorAll("body *")) {
    const said = [...el.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join(" ").trim();
    if (!said || !el.checkVisibility() || ["SCRIPT", "STYLE", "TITLE"].includes(el.tagName)) continue;
    const style = getComputedStyle(el);
    const background = behind(el.closest("svg")?.parentElement ?? el);
    const text = over(parse(el.closest("svg") ? style.fill : style.color), background);
    const [a, b] = [light(text), light(background)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const enough = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if (ratio < enough) bad.push([ratio.toFixed(2), el.tagName, said.slice(0, 40)]);
  }
  return bad;
}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    spec = importlib.util.spec_from_file_location("report_sample", Path(__file__).with_name("report_sample.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Path(build_report(module.make_report(), str(tmp_path_factory.mktemp("report")))).as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


class Visit:
    """A page and everything that it should not have done."""

    def __init__(self, browser: Any, url: str, size: dict[str, int], scheme: str, **options: Any) -> None:
        self.context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce", **options)
        self.page = self.context.new_page()
        self.noise: list[str] = []
        self.page.add_init_script(WATCH)
        self.page.on("console", lambda m: self.noise.append(f"console {m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.noise.append(f"error: {e}"))
        self.page.on("dialog", lambda d: (self.noise.append("dialog"), d.dismiss()))
        self.page.on("popup", lambda p: self.noise.append("popup"))
        self.page.on("request", self._request)
        self.page.goto(url)

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("file://", "data:")):
            self.noise.append(f"request: {request.url[:80]}")

    def read_through(self) -> None:
        """Scroll to the end, so that every plot of a selected tab is drawn."""
        self.page.evaluate(
            """async () => {
              for (let y = 0; y < document.documentElement.scrollHeight; y += 800) {
                scrollTo({ top: y, behavior: "instant" });
                await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
              }
            }"""
        )
        self.page.wait_for_function(
            "[...document.querySelectorAll('.plot')].every(p => !p.clientWidth || p.querySelector('.main-svg'))"
        )

    def see(self, plot: str) -> None:
        """Scroll to one plot and wait until it is drawn."""
        self.page.locator(plot).scroll_into_view_if_needed()
        self.page.wait_for_selector(f"{plot} .main-svg", state="attached")

    def overflow(self) -> int:
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")

    def check_quiet(self) -> None:
        assert self.page.evaluate("window.violations") == []
        assert self.page.evaluate("window.pwned === undefined")
        assert self.noise == []

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: Any) -> None:
        self.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_reads_well_and_does_nothing_else(browser: Any, url: str, size: dict[str, int], scheme: str) -> None:
    with Visit(browser, url, size, scheme) as visit:
        visit.read_through()
        assert visit.overflow() <= 0
        assert visit.page.evaluate(CONTRAST) == []
        visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert visit.overflow() <= 0
        visit.page.evaluate("document.querySelectorAll('[role=tab]').forEach((t) => t.checkVisibility() && t.click())")
        visit.read_through()
        assert visit.overflow() <= 0
        visit.check_quiet()


def test_every_plot_is_drawn(browser: Any, url: str) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        page = visit.page
        for plot in ("#plot-curves", "#plot-networks-0", "#plot-score-0-1", "#plot-learned-0", "#plot-clusters-0"):
            visit.see(plot)
        assert page.locator("#plot-curves .scatterlayer path.js-line").count() == 4 * 5 + 4
        assert page.locator("#plot-score-0-1 .barlayer .point path").count() > 60
        assert page.locator("#plot-score-0-1 .shapelayer path").count() == 2
        assert page.locator("#plot-clusters-0 .points path").count() == 10
        assert page.locator("#plot-networks-0 .points path.point").count() == 2
        assert page.locator("#plot-networks-0 .errorbars").count() == 2
        assert page.locator("#plot-learned-0 .scatterlayer path.js-line").count() == 4
        assert page.locator("#plot-score-0-0 .main-svg").count() == 0  # its tab was not opened
        page.get_by_role("tab", name="clip_top").and_(page.locator("[id^=score]")).click()
        page.wait_for_selector("#plot-score-0-0 .barlayer path", state="attached")
        page.locator("#plot-clusters-0 .points path").nth(5).hover(force=True)  # hostile text appears as it is written
        page.wait_for_selector("#plot-clusters-0 .hovertext")
        assert "<b>bold</b> &amp; <a href='javascript:" in (page.text_content("#plot-clusters-0 .hovertext") or "")
        assert page.locator("svg a").count() == 0
        visit.check_quiet()


def test_measures_of_trainings_are_behind_tabs(browser: Any, url: str) -> None:
    with Visit(browser, url, PHONE, "dark") as visit:
        page = visit.page
        assert page.locator("#plot-curves-3 .main-svg").count() == 0  # its tab was not opened
        page.locator("#training [role=tab]", has_text="Logit scale").click()
        visit.see("#plot-curves-3")
        assert page.locator("#plot-curves-3 path.js-line").count() == 4 * 5 + 4
        page.locator("#training [role=tab]", has_text="Learning rate").click()
        visit.see("#plot-curves-2")
        assert page.locator("#plot-curves-2 path.js-line").count() == 2
        page.locator("#training [role=tab]").last.click()
        assert "<b>teacher</b> & co" in page.locator("#training [role=tab]").last.inner_text()
        table = page.locator("#training .trainings table")
        table.get_by_role("button", name="distinct").click()
        assert table.locator("tbody th").first.inner_text().startswith("everything")
        assert visit.overflow() <= 0
        visit.check_quiet()


def test_legend_hides_and_shows(browser: Any, url: str) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        visit.see("#plot-curves")
        lines = visit.page.locator("#plot-curves path.js-line")
        key = visit.page.locator("[data-plot=plot-curves]").first
        before = lines.count()
        key.click()
        assert key.get_attribute("aria-pressed") == "false"
        assert lines.count() == before - 6
        visit.page.locator("button.theme").click()
        assert lines.count() == before - 6
        key.click()
        assert lines.count() == before


def test_tabs_by_mouse_and_keyboard(browser: Any, url: str) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        page = visit.page
        tabs = page.locator("#funnel [role=tab]")
        panels = page.locator("#funnel [role=tabpanel]")
        assert [tabs.nth(i).get_attribute("aria-selected") for i in range(4)] == ["false"] * 3 + ["true"]
        assert [panels.nth(i).is_visible() for i in range(4)] == [False] * 3 + [True]
        tabs.nth(1).click()
        assert [panels.nth(i).is_visible() for i in range(4)] == [False, True, False, False]
        page.keyboard.press("ArrowRight")
        assert panels.nth(2).is_visible()
        assert tabs.nth(2).evaluate("t => t === document.activeElement")
        page.keyboard.press("End")
        page.keyboard.press("ArrowRight")
        assert panels.nth(0).is_visible()
        assert page.locator("#funnel [role=tab][tabindex='0']").count() == 1


def test_theme_changes_page_and_plots_and_is_kept(browser: Any, url: str) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        page = visit.page

        def colours() -> list[str]:
            visit.see("#plot-curves")
            return page.evaluate(
                "[getComputedStyle(document.body).backgroundColor,"
                " document.querySelector('#plot-curves .xtick text').style.fill,"
                " document.querySelector('#plot-curves path.js-line').style.stroke]"
            )

        light = colours()
        page.locator("button.theme").click()
        dark = colours()
        assert all(a != b for a, b in zip(light, dark, strict=True))
        page.reload()
        assert colours() == dark
        page.locator("button.theme").click()
        assert colours() == light
        visit.check_quiet()


def test_tables_sort(browser: Any, url: str) -> None:
    with Visit(browser, url, WIDE, "light") as visit:
        table = visit.page.locator("#models table.board").first

        def order() -> list[str]:
            return [t.strip().split("\n")[0] for t in table.locator("tbody th").all_inner_texts()]

        assert order() == ["everything", "random", "clip_top", "curated"]
        table.get_by_role("button", name="mean").click()
        assert order() == ["curated", "clip_top", "everything", "random"]
        assert table.locator("th[aria-sort=descending]").count() == 1
        table.get_by_role("button", name="mean").click()
        assert order()[0] == "random"
        table.get_by_role("button", name="arm").click()
        assert order() == ["everything", "random", "clip_top", "curated"]


def test_scores_are_read_by_keyboard(browser: Any, url: str) -> None:
    with Visit(browser, url, PHONE, "light") as visit:
        page = visit.page
        page.locator("#networks [role=tab]").first.focus()
        page.keyboard.press("ArrowRight")
        visit.see("#plot-networks-1")
        summary = page.locator("#scores .made summary").nth(1)
        summary.focus()
        page.keyboard.press("Enter")
        shown = page.locator("#scores .made details[open] .pairs")
        assert shown.count() == 1
        assert "temperature" in shown.inner_text()
        numbers = page.locator("#scores .multiples summary").first
        numbers.focus()
        page.keyboard.press("Enter")
        assert page.locator("#scores .multiples details[open] table").is_visible()
        page.locator("#learned [role=tab]").last.focus()
        page.keyboard.press("Home")
        assert page.locator("#learned table.weights").first.is_visible()
        assert visit.overflow() <= 0
        visit.check_quiet()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_thirty_subsets_are_read_on_a_phone_by_keyboard(browser: Any, tmp_path: Path, scheme: str) -> None:
    spec = importlib.util.spec_from_file_location("subsets", Path(__file__).with_name("report_sample_subsets.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    thirty = Report(Header("thirty"), overlap=module.many_subsets(30))
    with Visit(browser, Path(build_report(thirty, str(tmp_path))).as_uri(), PHONE, scheme) as visit:
        page = visit.page
        assert visit.overflow() <= 0
        assert page.evaluate(CONTRAST) == []
        page.locator("#overlap [role=tab]").first.focus()
        page.keyboard.press("End")
        page.keyboard.press("Tab")
        box = page.locator("#overlap .box:focus")
        assert "Jaccard" in (box.get_attribute("aria-label") or "")
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(300)  # the page's policy lets no polling expression run
        assert page.evaluate("document.activeElement.scrollLeft") > 0
        assert box.locator("tbody th").nth(1).inner_text().endswith("</td><script>window.pwned=1</script>")
        assert box.locator("tbody th").first.evaluate("e => e.getBoundingClientRect().left") >= 0  # names stay in sight
        assert box.locator("tbody td").count() == 900
        visit.check_quiet()


def test_close_calls_and_pairs_are_shown(browser: Any, url: str) -> None:
    with Visit(browser, url, PHONE, "light") as visit:
        page = visit.page
        page.locator("#galleries [role=tab]:visible", has_text="exact_dedup").click()
        assert page.locator("#galleries .twins > li:visible").count() == 5
        page.locator("#galleries [role=tab]:visible", has_text="top_fraction").click()
        titles = page.locator("#galleries .side h4:visible").all_inner_texts()
        assert [t.split(" 12")[0].split(" 6")[0] for t in titles] == ["just dropped", "just kept", "dropped", "kept"]
        page.locator("#funnel .how summary:visible").click()
        assert "</td><script>window.pwned=1</script>" in page.locator("#funnel .how:visible").inner_text()
        assert visit.overflow() <= 0
        visit.check_quiet()


def test_names_of_scores_are_read_as_written(browser: Any, url: str) -> None:
    hostile = "</td><script>window.pwned=1</script>"
    with Visit(browser, url, WIDE, "dark") as visit:
        page = visit.page
        assert hostile in page.locator("#scores .multiples h4").all_inner_texts()
        assert hostile in page.locator("#learned table.weights tbody th").all_inner_texts()
        assert hostile in page.locator("#looks tbody th").last.inner_text()
        assert "loaded from <b>weights</b>/ViT-L-14.pt" in page.locator("#networks").inner_text()
        assert "(empty)" in page.locator("#scores .counts .code").all_inner_texts()
        visit.check_quiet()


def test_bars_of_small_histograms_lie_in_their_box(browser: Any, url: str) -> None:
    with Visit(browser, url, PHONE, "light") as visit:
        outside = visit.page.locator("#scores .multiples svg").evaluate_all(
            "all => all.filter(s => { const b = s.getBoundingClientRect();"
            " return [...s.querySelectorAll('rect')].some(r => { const q = r.getBoundingClientRect();"
            " return q.top < b.top - 1 || q.bottom > b.bottom + 1 || q.right > b.right + 1; }); }).length"
        )
        assert outside == 0


def test_hostile_captions_are_read_as_written(browser: Any, url: str) -> None:
    with Visit(browser, url, PHONE, "dark") as visit:
        shown = visit.page.locator("#galleries [role=tabpanel]:not(.later) .side.dropped .caption")
        first = shown.all_inner_texts()[:15]
        assert first[0] == "<script>window.pwned=1</script>"
        assert first[4].startswith("{{7*7}} {% raw %}")
        assert "⟨U+202E⟩eerht⟨U+202C⟩" in first[5]
        assert first[6].startswith("line one⏎line two⏎and⇥tab␀␇␛")
        assert first[14] == "no caption"
        assert visit.page.locator("#galleries img").evaluate_all(
            "all => all.filter(i => i.checkVisibility()).every(i =>"
            " i.complete && i.naturalWidth === 32 && getComputedStyle(i).imageRendering === 'pixelated')"
        )
        visit.check_quiet()


def test_paper_shows_everything_in_light(browser: Any, url: str) -> None:
    with Visit(browser, url, {"width": 794, "height": 1123}, "dark") as visit:
        page = visit.page
        page.emulate_media(media="print")
        page.wait_for_function("[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))")
        assert page.locator("[role=tabpanel]").evaluate_all("all => all.every(p => p.checkVisibility())")
        assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(27, 31, 36)"
        assert visit.overflow() <= 0
        page.emulate_media(media="screen")
        assert page.locator("#funnel [role=tabpanel]").first.is_hidden()
        visit.check_quiet()


def test_without_scripts_everything_can_be_read(browser: Any, url: str) -> None:
    with Visit(browser, url, PHONE, "light", java_script_enabled=False) as visit:
        assert visit.page.locator("#funnel [role=tabpanel]").first.is_visible()
        assert visit.page.locator("#truth table").first.is_visible()
        assert visit.page.locator("button.theme").is_hidden()
        visit.page.locator("#training summary").first.click()
        assert visit.page.locator("#training table").first.is_visible()
