"""The report as data and text: it adds up, it escapes, it is the same every time, and every section may be absent."""

import base64
import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import DataError
from curate.eval.report import Report, build_report, data, marks, quantity, training
from curate.eval.report.build import machine_readable, render
from curate.eval.report.check import check_report
from curate.eval.report.galleries import data_uri
from curate.eval.report.sections import sections
from curate.eval.report.verdict import judge, verdict
from curate.eval.report.visible import json_block, marked, plot_text, reveal, shorten

SAMPLE = Path(__file__).with_name("report_sample.py")
_spec = importlib.util.spec_from_file_location("report_sample", SAMPLE)
assert _spec is not None
assert _spec.loader is not None
report_sample = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(report_sample)


@pytest.fixture(scope="module")
def sample() -> Report:
    return report_sample.make_report()


@pytest.fixture(scope="module")
def page(sample: Report) -> str:
    return render(sample)


class Parsed(HTMLParser):
    """What a browser would make of the page: elements with attributes, and the text of scripts and style sheets."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.code: list[tuple[str, dict[str, str], str]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag in ("script", "style"):
            self.code.append((tag, self.elements[-1][1], ""))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style") and self.cdata_elem:
            tag, attributes, text = self.code[-1]
            self.code[-1] = (tag, attributes, text + data)
        else:
            self.text.append(data)


# --- hostile text ----------------------------------------------------------------------------------


def test_nothing_of_the_data_becomes_markup(page: str) -> None:
    parsed = Parsed(page)
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"iframe", "object", "embed", "link", "base", "form", "foreignobject", "animate", "use", "input"}
    for tag, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset", "srcdoc")]
        if "href" in attributes:
            assert tag == "a"
            assert attributes["href"].startswith("#")
        if "src" in attributes:
            assert tag == "img"
            assert re.fullmatch(r"data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+", attributes["src"])
    images = sum(tag == "img" for tag, _ in parsed.elements)
    cards = 0
    for g in report_sample.make_report().galleries:
        paired = [card for pair in g.pairs for card in (pair.dropped, pair.kept)]
        shown = [*g.dropped, *g.kept, *g.just_dropped, *g.just_kept, *paired]
        cards += sum(card.picture is not None for card in shown)
    assert images == cards
    shown = "".join(parsed.text)
    for caption in (report_sample.HOSTILE[0], report_sample.HOSTILE[1], report_sample.HOSTILE[4]):
        assert caption in shown
    assert "window.pwned=1" not in "".join(text for _, a, text in parsed.code if a.get("type") != "application/json")


def test_policy_names_every_script_and_style_and_nothing_else(page: str) -> None:
    parsed = Parsed(page)
    policy = next(a["content"] for t, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "unsafe" not in policy
    assert "http" not in policy

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    run = [text for tag, a, text in parsed.code if tag == "script" and a.get("type") != "application/json"]
    assert len(run) == 3  # theme, page, plotly
    assert set(rules["script-src"].split()) == {hashed(text) for text in run}
    assert set(rules["style-src"].split()) == {hashed(t) for tag, _, t in parsed.code if tag == "style"} | {hashed("")}
    before = page[: page.index("Content-Security-Policy")]
    assert "<script" not in before
    assert "<style" not in before


def test_the_style_sheet_loads_nothing(page: str) -> None:
    (style,) = (text for tag, _, text in Parsed(page).code if tag == "style")
    assert "url(" not in style
    assert "@import" not in style


@given(st.text())
def test_reveal_leaves_nothing_hidden(text: str) -> None:
    shown = reveal(text)
    hidden = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
    assert not hidden.search(shown)
    assert reveal(shown) == shown
    shown.encode()


def test_reveal_shows_what_it_found() -> None:
    assert reveal("a\u202eb") == "a⟨U+202E⟩b"
    assert reveal("a\r\nb\tc\x00") == "a⏎b⇥c␀"
    family = "\U0001f469\u200d\U0001f467"
    assert reveal(family) == family
    assert reveal("a\u200db") == "a⟨U+200D⟩b"
    assert "<i class" in marked("a\u202e<b>")
    assert "&lt;b&gt;" in marked("a\u202e<b>")
    assert shorten("abcdef", 4) == "abc…"


@given(st.text())
def test_plot_text_holds_no_tag_entity_or_placeholder(text: str) -> None:
    inert = plot_text(text, 1000)
    assert "<" not in inert
    assert "%{" not in inert
    assert not re.search(r"&(?!(amp|lt|gt|#34|#36|#39|#123);)", inert)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_json_block_is_json_and_cannot_end_its_element(value: Any) -> None:
    block = json_block(value)
    assert not re.search("[<>&\u2028\u2029]", block)
    assert json.loads(block) == value


def test_only_pictures_are_shown() -> None:
    with pytest.raises(DataError, match="svg"):
        data_uri(data.Picture(b"<svg/>", "image/svg+xml", 1, 1))


def test_long_captions_are_cut_and_say_so(page: str) -> None:
    assert "W" * 4001 not in page
    assert "(6,000 more characters)" in page


# --- the same data, the same bytes -----------------------------------------------------------------


def test_the_same_data_gives_the_same_bytes_in_another_process(sample: Report, tmp_path: Path) -> None:
    build_report(sample, str(tmp_path / "here"))
    script = (
        "import runpy, sys; from curate.eval.report import build_report; "
        "build_report(runpy.run_path(sys.argv[1])['make_report'](), sys.argv[2])"
    )
    there = tmp_path / "there"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    subprocess.run([sys.executable, "-c", script, str(SAMPLE), str(there)], check=True, env=environment)
    for name in ("index.html", "report.json"):
        assert (tmp_path / "here" / name).read_bytes() == (there / name).read_bytes()
    assert sorted(os.listdir(there)) == ["index.html", "report.json"]


def test_machines_get_strict_json_without_pictures(sample: Report, tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    bad = dataclasses.replace(sample, curves=[data.Curve("a", 0, [0, 1], [float("nan"), float("inf")])])
    path = build_report(bad, str(tmp_path))
    assert path == f"{tmp_path}/index.html"
    told = json.loads((tmp_path / "report.json").read_text("utf-8"), parse_constant=refuse)
    assert told["curves"][0]["loss"] == [None, None]
    assert told["sentence"].startswith("Curation helped: curated ")
    pictures = [c["picture"] for g in told["galleries"] for c in g["dropped"] if c["picture"]]
    assert pictures[0].keys() == {"mime", "width", "height", "bytes"}
    assert told["funnels"][3]["steps"][1]["label"] == "basic"
    assert told["networks"]["networks"][0]["scores"]["digits/zero_shot"]["mean"] == 0.684
    assert told["learned"][0]["facts"]["long"] == list(range(100))  # the page shortens, this does not
    assert told["looks"][0]["tallies"][0]["nulls"]["corrupt"] == 3
    with pytest.raises(DataError, match="object"):
        machine_readable(Report(data.Header("x", facts={"a": object()})))  # type: ignore[dict-item]


# --- sections --------------------------------------------------------------------------------------

SECTION_OF = {
    "leaderboard": "models",
    "trainings": "training",
    "networks": "networks",
    "pool": "pool",
    "looks": "looks",
    "funnels": "funnel",
    "overlap": "overlap",
    "leakage": "leakage",
    "scores": "scores",
    "learned": "learned",
    "galleries": "galleries",
    "truth": "truth",
    "groups": "clusters",
    "stages": "stages",
    "provenance": "provenance",
}


@pytest.mark.parametrize("field", [*SECTION_OF, "headline", "notes", "meanings"])
def test_every_section_is_optional(sample: Report, field: str) -> None:
    alone = ("pool", "stages", "networks", "overlap")
    empty = {"meanings": {}, "headline": None}.get(field, None if field in alone else ())
    if field in ("leaderboard", "provenance"):
        empty = None
    together = {"scores": ("histograms", "commonest", "score_facts"), "groups": ("clusters", "quotas")}
    together["trainings"] = ("trainings", "curves")
    fields = together.get(field, (field,))
    report = dataclasses.replace(sample, **dict.fromkeys(fields, empty))
    page = render(report)
    ids = {a["id"] for _, a in Parsed(page).elements if "id" in a}
    assert {s.id for s in sections(report)} == set(SECTION_OF.values()) - {SECTION_OF.get(field, "")}
    gone = {"headline": "result"}.get(field, SECTION_OF.get(field))
    for id in {"result", *SECTION_OF.values()}:
        assert (id in ids) == (id != gone)
        assert (f'href="#{id}"' in page) == (id != gone)


def test_a_page_of_almost_nothing() -> None:
    page = render(Report(data.Header("only a name")))
    assert len(page) < 60_000  # no plotly
    assert "<section" not in page
    assert Parsed(page).elements


def test_ids_are_unique_and_labels_lead_somewhere(page: str) -> None:
    elements = Parsed(page).elements
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in elements:
        for name in ("aria-controls", "aria-labelledby"):
            assert set(attributes.get(name, "").split()) <= set(ids)


def test_figures_are_valid_plotly(sample: Report) -> None:
    import plotly.graph_objects as go

    plots = [p for s in sections(sample) for p in s.plots]
    assert [p.id for p in plots] == [
        "plot-curves", *(f"plot-curves-{i}" for i in range(1, 6)),
        "plot-networks-0", "plot-networks-1", "plot-score-0-0", "plot-score-0-1",
        "plot-learned-0", "plot-learned-2", "plot-clusters-0", "plot-quotas-1",
    ]  # fmt: skip
    for plot in plots:
        drawn = go.Figure(json.loads(re.sub(r"var\(--[a-z0-9-]+\)", "#123456", json.dumps(plot.figure))))
        assert len(drawn.data) == len(plot.figure["data"])
        assert plot.says.endswith(".")
        assert plot.table.rows
        for key in plot.legend:
            assert all(0 <= i < len(plot.figure["data"]) for i in key.traces)


def test_every_colour_has_a_value_in_the_style_sheet(page: str) -> None:
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", page[: page.rindex("<script>")]))
    assert used - {"--name"} <= set(re.findall(r"(--[a-z0-9-]+):", page))


# --- trainings -------------------------------------------------------------------------------------


def test_measures_are_told_apart_and_equal_ones_are_one_line(sample: Report) -> None:
    section = next(s for s in sections(sample) if s.id == "training")
    titles = ["Training loss", "Validation loss", "Learning rate", "Logit scale", "Gradient norm"]
    assert [p.title for p in section.plots][:5] == titles
    assert section.plots[5].title.startswith("Part of the loss: ")
    rate, scale = section.plots[2], section.plots[3]
    assert len(rate.figure["data"]) == 2
    assert not rate.legend
    assert rate.table.rows[0][:2] == ["all trainings", "20"]
    assert "the same for all trainings" in rate.says
    assert len(scale.figure["data"]) == 4 * 5 + 4
    assert [key.name for key in scale.legend] == ["everything", "random", "clip_top", "curated"]
    mean = scale.figure["data"][20]
    firsts = [t["y"][0] for t in scale.figure["data"][:5]]
    assert mean["y"][0] == pytest.approx(sum(firsts) / 5, rel=1e-5)


def test_what_is_alike_is_said_once(sample: Report) -> None:
    common, columns = ([f.name for f in facts] for facts in training.split_facts(sample.trainings))
    assert common == ["samples seen", "steps", "parameters", "operations", "device"]
    assert columns[:3] == ["distinct", "epochs", "corrupt, replaced"]
    assert {"time", "samples/s", "data wait", "memory", "cost"} <= set(columns)
    assert not {"MFU", "steps left out", "GPU memory", "starts"} & {*common, *columns}
    shown = render(sample).replace(quantity.NARROW, " ")
    assert "3.10 × 10¹² FLOP" in shown
    assert "1.23 M" in shown
    alone = dataclasses.replace(sample, trainings=[sample.trainings[0]], curves=())
    common, columns = ([f.name for f in facts] for facts in training.split_facts(alone.trainings))
    assert not columns
    assert {"time", "corrupt, replaced"} <= set(common)
    assert "What the training took" in render(alone)


def test_operations_and_parameters_are_written_short() -> None:
    assert quantity.operations(4.4e15) == "4.40 × 10¹⁵ FLOP".replace(" ", quantity.NARROW)
    assert quantity.operations(1e12).startswith("1.00")
    assert quantity.operations(999) == f"999{quantity.NARROW}FLOP"
    assert quantity.scaled(86_567_656) == f"86.6{quantity.NARROW}M"
    assert quantity.scaled(512) == "512"


# --- numbers that add up ---------------------------------------------------------------------------


def funnel(*steps: tuple[int, int, dict[str, int]], pool: int = 10) -> Report:
    made = [data.FunnelStep(f"s{i}", *step) for i, step in enumerate(steps)]
    return Report(data.Header("x"), funnels=[data.Funnel("a", pool, made)])


def test_a_funnel_that_adds_up() -> None:
    check_report(funnel((10, 8, {"dead": 2}), (8, 8, {}), (8, 3, {"low": 4, "copy": 1})))


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (funnel((9, 8, {"dead": 1})), "9 rows enter 's0', but 10 came before"),
        (funnel((10, 8, {"dead": 2}), (7, 7, {})), "7 rows enter 's1', but 8 came before"),
        (funnel((10, 8, {"dead": 1})), "drops 2 rows, its reasons add up to 1"),
        (funnel((10, 11, {"dead": -1})), "keeps 11 of 10"),
        (Report(data.Header("x"), pool=data.Pool(10, 8, {"dead": 1})), "is not the 1 failures"),
        (dataclasses.replace(funnel((10, 10, {})), pool=data.Pool(11, 11)), "starts with 10 rows, the pool has 11"),
        (Report(data.Header("x"), histograms=[data.Histogram("c", [0, 1], [1, 2])]), "2 edges for 2 bins"),
        (Report(data.Header("x"), histograms=[data.Histogram("c", [0, 0], [1])]), "not finite and ascending"),
        (
            Report(data.Header("x"), histograms=[data.Histogram("c", [0, 1], [3], [data.Split("a", [], [2], [2])])]),
            "in bin 0 is 4, more than its 3 rows",
        ),
        (Report(data.Header("x"), truth=[data.FilterTruth("a", "f", 5, 2, 1, 2)]), "caught 2 of faulty 1"),
        (Report(data.Header("x"), curves=[data.Curve("a", 0, [1, 2], [1.0])]), "2 places, 1 losses"),
        (
            Report(data.Header("x"), curves=[data.Curve("a", 0, [1], [1.0], {"lr": data.Line([1, 2], [0.1])})]),
            "2 places, 1 values of 'lr'",
        ),
        (Report(data.Header("x"), trainings=[data.Training("a", 0, 1, 1, data_wait=1.5)]), "waits for data 1.5"),
        (
            Report(data.Header("x"), trainings=[data.Training("a", 0, 1, 1, samples=3, distinct=4)]),
            "4 distinct samples of 3",
        ),
        (Report(data.Header("x"), trainings=[data.Training("a", 0, 1, 1)] * 2), "'a, seed 0' is there twice"),
        (
            Report(data.Header("x"), clusters=[data.ClusterMap("a", "f", [data.Cluster(0, 0, 0, 1, 2)])]),
            "keeps 2 of 1",
        ),
        (
            Report(data.Header("x"), leaderboard=data.Leaderboard([], [data.Arm("a", {"m": data.Estimate(1)})])),
            "is no metric",
        ),
    ],
)
def test_data_that_does_not_add_up_is_refused(report: Report, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        build_report(report, str(tmp_path / "report"))
    assert not (tmp_path / "report").exists()


def test_precision_and_recall_by_hand() -> None:
    truth = data.FilterTruth("a", "f", entered=100, dropped=20, faulty=25, caught=15)
    assert truth.precision == 0.75
    assert truth.recall == 0.6
    assert data.FilterTruth("a", "f", 10, 0, 0, 0).precision is None


# --- words and numbers -----------------------------------------------------------------------------

ACCURACY = data.Metric("acc", "top-1")
LOSS = data.Metric("loss", "loss", unit="number", higher_is_better=False)


def contrast(mean: float, low: float | None, high: float | None, seeds: int = 5) -> data.Contrast:
    difference = data.Estimate(mean, low, high, [mean] * seeds)
    return data.Contrast("curated", "everything", data.Estimate(0.784 + mean), data.Estimate(0.784), difference)


@pytest.mark.parametrize(
    ("case", "metric", "kind"),
    [
        (contrast(0.128, 0.101, 0.155), ACCURACY, "gain"),
        (contrast(-0.05, -0.08, -0.02), ACCURACY, "loss"),
        (contrast(0.02, -0.01, 0.05), ACCURACY, "unclear"),
        (contrast(0.02, 0.0, 0.04), ACCURACY, "unclear"),
        (contrast(0.128, None, None, 1), ACCURACY, "untested"),
        (contrast(-0.3, -0.4, -0.2), LOSS, "gain"),
        (contrast(0.3, 0.2, 0.4), LOSS, "loss"),
    ],
)
def test_the_verdict_is_what_the_interval_allows(case: data.Contrast, metric: data.Metric, kind: str) -> None:
    assert judge(case, metric) == kind


def test_the_headline_sentence() -> None:
    said = verdict(contrast(0.128, 0.101, 0.155), ACCURACY).sentence().replace("\u202f", " ").replace("\u00a0", " ")
    assert said == (
        "Curation helped: curated 91.2 % against everything 78.4 %: +12.8 points [+10.1, +15.5], 5 paired seeds."
    )
    unclear = verdict(contrast(-0.002, -0.01, 0.006), ACCURACY)
    assert unclear.label == "No clear difference"
    assert "includes 0" in unclear.basis
    assert unclear.change == "−0.2 points"
    assert "hurt" in verdict(contrast(-0.05, -0.08, -0.02), ACCURACY).label
    assert "chance" in verdict(contrast(0.1, None, None, 1), ACCURACY).basis


def test_quantities() -> None:
    plain = str.maketrans({"\u202f": " "})
    assert quantity.percent(0.9123).translate(plain) == "91.2 %"
    assert quantity.percent(None) == quantity.NONE
    assert quantity.share(1, 10_000).translate(plain) == "< 0.1 %"
    assert quantity.share(0, 0) == quantity.NONE
    assert quantity.change(-0.0001, ACCURACY) == "0.0 points"
    assert quantity.change(0.01, ACCURACY) == "+1.0 point"
    assert [quantity.duration(s).translate(plain) for s in (0.42, 7.31, 9.97, 59.6, 272, 11_100)] == [
        "0.42 s", "7.3 s", "10 s", "1 min 00 s", "4 min 32 s", "3 h 05 min",
    ]  # fmt: skip
    assert [quantity.clock(s).translate(plain) for s in (0, 15, 90, 7200)] == ["0", "15 s", "1:30", "2:00:00"]
    assert [quantity.size(n).translate(plain) for n in (0, 999, 1000, 1_234_567)] == ["0 B", "999 B", "1 kB", "1.23 MB"]
    assert quantity.value(-0.123456) == "−0.1235"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.booleans())
def test_scales_hold_their_values(values: list[float], zero: bool) -> None:
    scale = marks.scale(values, zero=zero)
    assert all(scale.holds(v) for v in values)
    assert not zero or scale.holds(0)
    assert 2 <= len(scale.ticks) <= 12
    assert all(0 <= scale.at(t) <= 100 for t in scale.ticks)
    assert scale.at(min(values)) <= scale.at(max(values))


@given(st.floats(0.01, 1e7))
def test_time_axes_have_a_few_round_ticks(seconds: float) -> None:
    ticks = marks.time_ticks(seconds)
    assert ticks[0] == 0
    assert len(ticks) <= 6
    assert ticks[-1] <= seconds
