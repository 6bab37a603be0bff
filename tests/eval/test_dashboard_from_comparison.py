"""From finished evaluations to a page: numbers, tests and examples arrive as they were stored, and texts stay texts."""

import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compare_sample import answers, record_of, write_results
from PIL import Image
from zoo_results import babel
from zoo_results import write as write_zoo

from curate.eval.comparison.run_measures import Evaluated
from curate.eval.comparison.runs import compare_models
from curate.eval.evaluate import evaluate_encoders, open_sets
from curate.eval.examples import SCHEMA, collect, seen_on, write_bank
from curate.eval.report.dashboard import Dashboard
from curate.eval.report.dashboard.check import check_dashboard
from curate.eval.report.dashboard.from_comparison import Background, Beside, dashboard_of
from curate.eval.report.dashboard.payload import payload
from curate.eval.results.files import read_results
from curate.eval.suites import parse_suites
from curate.pipeline.reporting.evaluation_page import write_evaluation
from curate.pipeline.run_results import Measured, RunResults
from curate.shards.evalsets.open import open_evalset
from curate.shards.evalsets.write import write_evalset, write_retrieval
from curate.shards.images.image import decode_rgb

HOSTILE = '<img src=x onerror="window.hacked=1">'
REORDERING = "abc\u202egnp.exe\u202c"
LONG = "W" * 300
NAMES = (HOSTILE, REORDERING, LONG, "</script><script>window.hacked=1</script>", "{{7*7}}", "fox")


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{name}_of_comparison", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


driving = load("test_report_browser")
in_browser = driving.pytestmark


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


class NoisyEncoder:
    """Sees a picture's class in its red channel through noise, hears it in a prompt; of captions it hears noise."""

    dim, precision = 12, "fp32"

    def __init__(self, noise: float, seed: int) -> None:
        self.digest = f"{seed:016x}{int(noise * 1000):016x}"
        self.noise, self.seed = noise, seed

    def encode_images(self, images):
        pixels = np.stack([decode_rgb(image)[0, 0] for image in images]).astype(int)
        return unit(np.eye(self.dim)[pixels[:, 0]] + self.noise * np.stack([self._noise(*p) for p in pixels]))

    def encode_texts(self, texts):
        return unit(np.stack([self._heard(text) for text in texts]))

    def _heard(self, text: str) -> np.ndarray:
        label = next((i for i, name in enumerate(NAMES) if text == f"a {name}"), None)
        return np.eye(self.dim)[label] if label is not None else self._noise(*text.encode())

    def _noise(self, *key: int) -> np.ndarray:
        return np.random.default_rng([self.seed, *key]).normal(size=self.dim) / np.sqrt(self.dim)


def picture(label: int, number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (label, number // 256, number % 256)).save(file, "PNG")
    return file.getvalue()


ARMS = {"plain": 2.5, "better": 1.2, "guess": 40.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets, three arms with two seeds each, measured for real."""
    root = tmp_path_factory.mktemp("measured")
    zoo, captions = root / "wds_zoo_test", root / "wds_told_test"
    write_evalset(str(zoo), NAMES, ["a {c}"], {"test": [(picture(i % 6, i), i % 6) for i in range(120)]})
    told = [(picture(6 + i % 3, 900 + i), [f"{HOSTILE} {i}", f"{REORDERING} {i}", f"{LONG}{i}"]) for i in range(20)]
    write_retrieval(str(captions), {"test": told})
    sets = open_sets([str(zoo), str(captions)], parse_suites(["zero_shot", "retrieval"]))
    encoders = {f"{arm}{seed}": NoisyEncoder(noise, seed) for arm, noise in ARMS.items() for seed in (0, 1)}
    evaluate_encoders(encoders, sets, {name: str(root / name) for name in encoders})
    return root


def models(root: Path) -> list[Evaluated]:
    facts = {"plain": 900, "better": 300, "guess": 40}
    return [
        Evaluated("run", arm, seed, str(root / f"{arm}{seed}"), {"samples_seen": 1280, "unique_images": facts[arm]})
        for arm in ARMS
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def comparison(root: Path) -> dict[str, Any]:
    return json.loads(json.dumps(compare_models(models(root)).to_json()))


def the_bank(root: Path) -> list[pa.Table]:
    folders = [(one.subset, one.folder, read_results(one.folder)) for one in models(root)]
    return [collect(open_evalset(str(root / f"wds_{n}_test")), seen_on(folders, n)) for n in ("zoo", "told")]


@pytest.fixture(scope="module")
def page(root: Path) -> Path:
    """The page as a run's report writes it."""
    measured = tuple(Measured(m.subset, m.seed, m.folder, dict(m.facts)) for m in models(root))
    report = {
        "funnels": [{"subset": "better", "pool": 1000, "steps": [{"label": HOSTILE, "entered": 1000, "kept": 300}]}]
    }
    bank = str(root / "bank.parquet")
    write_bank(bank, the_bank(root))
    runs = [RunResults("run", report, measured, bank=bank)]
    write_evaluation(runs, str(root / "page"), HOSTILE, pages=["../index.html"])
    return root / "page"


def record(root: Path, arm: str, seed: int, dataset: str) -> dict[str, Any]:
    results = json.loads((root / f"{arm}{seed}/results.json").read_text())["results"]
    return next(r for r in results if r["dataset"] == dataset)


def test_numbers_and_tests_arrive_as_they_were_made(comparison, root):
    found = dashboard_of(comparison, "t")
    check_dashboard(found)
    payload(found)
    name = "zoo|zero_shot|acc1"
    measure = next(m for m in found.measures if m.name == name)
    assert (measure.label, measure.n, measure.templates) == ("zoo, zero-shot top-1", 120, ["a {c}"])
    assert measure.chance == pytest.approx(1 / 6, abs=1e-5)
    arms = {arm.name: arm for arm in found.arms}
    for arm in ARMS:
        score = arms[arm].scores[name]
        own = [record(root, arm, seed, "zoo") for seed in (0, 1)]
        assert score.seeds == pytest.approx([r["metrics"]["acc1"] for r in own], abs=1e-6)
        ends = [end for span in score.spans if span for end in (span.low, span.high)]
        assert ends == pytest.approx([end for r in own for end in r["wilson95"]], abs=1e-6)
        assert {s.kind for s in score.spans if s} == {"Wilson, other test images"}
        assert score.span is not None
        assert score.span.kind == "Student's t, other seeds"
    assert {v[0] for v in arms["better"].scores[name].chance if v} == {"above"}
    assert {v[0] for v in arms["guess"].scores[name].chance if v} == {"like"}
    rank = arms["better"].scores[name].rank
    assert rank is not None
    assert (rank.rank, rank.of) == (1, 3)
    paired = next(d for d in found.differences if (d.arm, d.measure) == ("better", name))
    told = comparison["paired"][name][1]
    assert (paired.mean, paired.p, paired.holm) == (told["difference"], told["p"], told["p_holm"])
    assert (list(paired.samples or ()), list(paired.both or ())) == (told["samples"], told["both"])
    assert (paired.wins, paired.losses, paired.detectable) == (told["wins"], told["losses"], told["detectable"])
    assert paired.wins > paired.losses


def test_seeds_that_happen_to_agree_have_no_interval(comparison):
    """Both seeds of one arm here differ by the same number of pictures: that is no proof, and is not marked as one."""
    name = "zoo|zero_shot|acc1"
    assert comparison["paired"][name][1]["low"] == comparison["paired"][name][1]["high"]
    paired = next(d for d in dashboard_of(comparison, "t").differences if (d.arm, d.measure) == ("better", name))
    assert (paired.low, paired.high, paired.p) == (None, None, None)


def test_the_plot_opens_on_what_arms_differ_in(comparison):
    assert [f.name for f in dashboard_of(comparison, "t").facts] == ["unique_images", "samples_seen"]


def test_overall_ranks_are_told_with_their_chance(comparison):
    overall = dashboard_of(comparison, "t").overall
    assert overall is not None
    assert set(overall.measures) == {"zoo|zero_shot|acc1", "told|retrieval|mean_recall@1"}
    assert set(overall.ranks) == set(ARMS)
    assert all(low <= mean <= high for mean, low, high in overall.ranks.values())
    assert sum(mean for mean, *_ in overall.ranks.values()) == pytest.approx(6)


def test_mistakes_and_galleries_are_those_of_the_stored_outcomes(root, page):
    shown = json.loads((page / "dashboard.json").read_text())
    stored = {
        arm: {r["key"]: r for r in pq.read_table(root / f"{arm}0/outcomes/zoo.zero_shot.parquet").to_pylist()}
        for arm in ARMS
    }
    assert shown["mistakes"]
    for mistake in shown["mistakes"]:
        for arm, guess in mistake["guesses"].items():
            row = stored[arm][mistake["key"]]
            assert guess == {"label": NAMES[row["prediction"]], "right": row["correct"]}
            assert mistake["true"] == NAMES[row["label"]]
        assert mistake["picture"]["mime"] == "image/webp"
        assert not all(guess["right"] for guess in mistake["guesses"].values())
    ranks = pq.read_table(root / "better0/outcomes/told.retrieval.parquet").to_pylist()
    by_key = {row["key"]: row for row in ranks}
    captions = open_evalset(str(root / "wds_told_test")).split("test").captions
    assert captions is not None
    for query in shown["retrieved"]:
        row = by_key.get(query["key"]) or ranks[int(query["key"].removeprefix("caption "))]
        assert query["rank"]["better"] == row["rank"] + 1
        right = [hit["right"] for hit in query["hits"]["better"]]
        assert (row["rank"] < 5) == any(right)
        assert not any(right) or right.index(True) == row["rank"]
        if query["picture"]:
            assert [h["text"] for h in query["hits"]["better"]] == [captions.texts[i] for i in row["retrieved"][:5]]
            assert [a["text"] for a in query["answers"]] == [
                text for text, image in zip(captions.texts, captions.image, strict=True) if image == row["owner"]
            ]


def other_way(folder: Path, seed: int, text_hash: str, suites: tuple[str, ...], right: float = 0.6) -> str:
    records = [
        record_of(
            folder, name, answers(60, 4, right, seed), suite, text_hash=text_hash if suite == "zero_shot" else "p"
        )
        for name in ("letters", "shapes")
        for suite in suites
    ]
    return write_results(folder, records, digest=f"d{seed}")


def test_runs_measured_in_two_ways_are_told_once_and_still_have_a_mean(tmp_path):
    every = ("zero_shot", "knn")
    given = [
        Evaluated("old", "a", 0, other_way(tmp_path / "a", 0, "t0", every)),
        Evaluated("new", "b", 0, other_way(tmp_path / "b", 1, "t1", every)),
        Evaluated("new", "c", 0, other_way(tmp_path / "c", 2, "t1", every)),
    ]
    found = dashboard_of(compare_models(given).to_json(), "t")
    check_dashboard(found)
    told = [note for note in found.notes if "zero_shot" in note]
    assert len(told) == 1
    for words in ("2 ways", "2 sets", "letters", "shapes", "templates", "old/a (1)", "new/b, new/c (2)"):
        assert words in told[0]
    # two of three arms have the second way: all of those are complete, so a mean of them stands
    assert set(found.chosen) == {
        "letters|zero_shot|acc1#2",
        "shapes|zero_shot|acc1#2",
        "letters|knn|acc1",
        "shapes|knn|acc1",
    }
    assert any("Not all arms have all measures" in note for note in found.notes)
    half = [*given[:2], Evaluated("old", "d", 0, other_way(tmp_path / "d", 3, "t0", every))]
    half.append(Evaluated("new", "e", 0, other_way(tmp_path / "e", 4, "t1", every)))
    assert set(dashboard_of(compare_models(half).to_json(), "t").chosen) == {"letters|knn|acc1", "shapes|knn|acc1"}


def test_measures_of_everyone_are_chosen_without_a_word(comparison):
    found = dashboard_of(comparison, "t")
    assert set(found.chosen) == {m.name for m in found.measures if m.main}
    assert not any("Not all arms" in note for note in found.notes)
    assert any("two seeds" in note for note in found.notes)


def test_a_mean_of_one_measure_is_no_column(comparison):
    one, two = ({"name": n, "family": "capability", "measures": m, "missing": []} for n, m in (("x", 1), ("y", 2)))
    names = [m["id"] for m in comparison["measures"]]
    one["measures"], two["measures"] = names[:1], names[:2]
    part = {"name": "DataComp average of 38", "family": "datacomp", "measures": names[:1], "missing": ["m"] * 37}
    beside = Beside({"plain": Background(report="../x.html")}, altered={"DataComp average of 38": ["Caltech-101"]})
    found = dashboard_of({**comparison, "aggregates": [one, two, part]}, "t", beside=beside)
    assert [(a.name, a.needed, list(a.altered)) for a in found.aggregates] == [
        ("y", 2, []),
        ("DataComp average of 38", 38, ["Caltech-101"]),
    ]


def test_languages_have_their_own_sizes_and_chance(tmp_path):
    folder = write_zoo(tmp_path / "m", [babel()], ("multilingual",))
    runs = [RunResults("run", {}, (Measured("a", 0, str(folder), {}),))]
    write_evaluation(runs, str(tmp_path / "page"), "t")
    shown = json.loads((tmp_path / "page/dashboard.json").read_text())
    (table,) = shown["groups"]
    entries = json.loads((folder / "results.json").read_text())["results"][0]["languages"]
    assert table["field"] == "language"
    assert table["groups"] == [e["language"] for e in entries] == ["DE", "NE"]
    assert table["n"] == [e["n"] for e in entries] == [4, 3]
    assert table["chance"] == [e["chance"] for e in entries] == [1 / 3, 1 / 2]
    values = [s["value"] for s in table["arms"]["a"]]
    assert values == pytest.approx([e["metrics"]["acc1"] for e in entries], abs=1e-6)
    sizes = {m["name"].rpartition("|")[2]: m["n"] for m in shown["measures"]}
    assert (sizes["acc1:DE"], sizes["acc1:NE"]) == (4, 3)


def test_examples_of_another_set_of_the_same_name_are_not_mixed_in(root, tmp_path):
    """Two runs whose sets share a name: numbers of one set's pictures mean nothing in the other."""
    other = tmp_path / "wds_told_test"
    write_retrieval(str(other), {"test": [(picture(6, 2000 + i), [f"other {i}"]) for i in range(9)]})
    encoder = NoisyEncoder(1.0, 5)
    sets = open_sets([str(other)], parse_suites(["retrieval"]))
    evaluate_encoders({"x": encoder}, sets, {"x": str(tmp_path / "x")})
    of_x = ("x", str(tmp_path / "x"), read_results(str(tmp_path / "x")))
    bank = collect(open_evalset(str(other)), seen_on([of_x], "told"))
    banks = {"first": pa.concat_tables([SCHEMA.empty_table(), *the_bank(root)]), "second": bank}
    for name, table in banks.items():
        write_bank(str(tmp_path / f"{name}.parquet"), [table])
    runs = [
        RunResults("first", {}, (Measured("a", 0, str(root / "plain0"), {}),), bank=str(tmp_path / "first.parquet")),
        RunResults("second", {}, (Measured("a", 0, str(tmp_path / "x"), {}),), bank=str(tmp_path / "second.parquet")),
    ]
    write_evaluation(runs, str(tmp_path / "page"), "t")
    shown = json.loads((tmp_path / "page/dashboard.json").read_text())
    assert {arm for q in shown["retrieved"] for arm in q["hits"]} == {"first/a"}
    assert not [q for q in shown["retrieved"] if "other" in q["text"]]


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=driving.CHROMIUM, args=driving.QUIET)
        yield chromium
        chromium.close()


def on(mark: list[Any]) -> Any:
    def put(test: Any) -> Any:
        for one in mark:
            test = one(test)
        return test

    return put


@on(in_browser)
@pytest.mark.parametrize("size", [driving.WIDE, driving.PHONE], ids=["wide", "phone"])
def test_hostile_classes_and_captions_stay_text(browser: Any, page: Path, size: dict[str, int]) -> None:
    with driving.Visit(browser, (page / "index.html").as_uri(), size, "light") as visit:
        p = visit.page
        assert p.locator("h1").inner_text() == HOSTILE
        p.get_by_label("Filter classes").fill("onerror")
        assert p.locator("#classes tbody th").inner_text() == HOSTILE
        told = p.locator("#retrieval .belongs").inner_text()
        assert HOSTILE in told
        assert "⟨U+202E⟩" in told
        assert p.locator("#funnels .by-filter").filter(has_text=HOSTILE).count() == 1
        assert p.locator("#funnels a").first.get_attribute("href") == "../index.html"
        assert visit.overflow() <= 0
        assert p.evaluate(driving.CONTRAST) == []
        assert p.evaluate("window.hacked") is None
        assert p.evaluate("[...document.images].every(i => i.src.startsWith('data:image/webp') && i.naturalWidth > 0)")
        visit.check_quiet()


@on(in_browser)
def test_a_number_tells_its_rank_its_chance_and_what_would_be_found(browser: Any, page: Path) -> None:
    with driving.Visit(browser, (page / "index.html").as_uri(), driving.WIDE, "dark") as visit:
        p = visit.page
        assert p.locator("#pick-x").input_value() == "fact:unique_images"
        cell = "#leaderboard tbody tr:has-text('{}') td[data-column='m:zoo|zero_shot|acc1']"
        p.locator(cell.format("better")).hover()
        told = p.locator("#provenance").inner_text()
        for words in ("2 of 2 models above", "rank", "1 of 3", "other images alone", "against plain", "no interval"):
            assert words in told
        near = p.locator(cell.format("guess"))
        assert "near" in str(near.get_attribute("class"))
        near.hover()
        told = p.locator("#provenance").inner_text()
        for words in ("2 of 2 models not told apart", "only one was right", "detectable", "with 80"):
            assert words in told
        p.locator("#leaderboard td[data-column=rank]").first.hover()
        assert "other tasks of this kind" in p.locator("#provenance").inner_text()
        p.locator("#leaderboard th[data-column='m:zoo|zero_shot|acc1']").hover()
        assert "a {c}" in p.locator("#provenance").inner_text()
        assert "Kendall" in p.locator("#leaderboard .fine").inner_text()
        p.locator(".chooser > summary").click()
        p.locator(".choices input").first.click()
        assert p.locator("#leaderboard .fine").inner_text() == ""  # it is about the first choice alone
        visit.check_quiet()


@on(in_browser)
def test_every_control_is_reached_and_worked_by_keyboard(browser: Any, page: Path) -> None:
    with driving.Visit(browser, (page / "index.html").as_uri(), driving.WIDE, "light") as visit:
        p = visit.page
        wanted = p.evaluate(
            "[...document.querySelectorAll('main :is(select, input, button, summary, a)')]"
            ".filter(e => e.checkVisibility() && !e.disabled && e.tabIndex >= 0).length"
        )
        p.locator("button.theme").focus()
        reached = set()
        for _ in range(wanted + 60):
            p.keyboard.press("Tab")
            at = p.evaluate(
                "() => { const e = document.activeElement; if (!e.matches('main *')) return null;"
                " window.seen ??= []; if (!seen.includes(e)) seen.push(e);"
                " const b = e.getBoundingClientRect();"
                " return [seen.indexOf(e), e.matches('select, input, button, summary, a'), b.width > 0]; }"
            )
            if at is None and reached:
                break
            if at is not None:
                assert at[2]
                reached |= {at[0]} if at[1] else set()
        assert len(reached) == wanted
        # each select answers to a key, and nothing breaks
        for i in range(p.locator("main select").count()):
            p.locator("main select").nth(i).focus()
            p.keyboard.press("ArrowDown")
            assert p.evaluate("document.activeElement.tagName") in ("SELECT", "BODY")
        visit.check_quiet()


def test_the_page_holds_what_the_comparison_holds(comparison, page):
    assert json.loads((page / "comparison.json").read_text())["measures"] == comparison["measures"]
    assert isinstance(dashboard_of(comparison, "t"), Dashboard)
