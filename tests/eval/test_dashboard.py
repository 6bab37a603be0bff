"""The dashboard without a browser: what it refuses, what it holds, and that hostile text stays text."""

import base64
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import DataError
from curate.eval.report.dashboard import Dashboard, build_dashboard, data
from curate.eval.report.dashboard.build import SCRIPTS, SECTIONS, render
from curate.eval.report.dashboard.check import check_dashboard, is_relative
from curate.eval.report.dashboard.example_data import Guess, Mistake
from curate.eval.report.dashboard.payload import payload
from curate.eval.report.dashboard.pictures import bounded
from curate.eval.report.gallery_data import Picture

TEMPLATES = Path(data.__file__).parent / "templates"


def load_sample() -> Any:
    spec = importlib.util.spec_from_file_location("dashboard_sample", Path(__file__).with_name("dashboard_sample.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sample() -> Dashboard:
    return load_sample().make_dashboard()


@pytest.fixture(scope="module")
def page(sample: Dashboard) -> str:
    return render(sample)


class Tags(HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def block(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found.group(1))


def test_nothing_of_the_data_becomes_markup(page: str) -> None:
    tags = Tags(page).found
    assert [t for t, _ in tags].count("script") == 3
    assert not {t for t, _ in tags} & {"img", "iframe", "object", "embed", "form", "link", "base"}
    for _, attributes in tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert not (attributes.get("src") or attributes.get("href", "#") or "#").startswith(
            ("http", "//", "javascript")
        )


def test_a_hostile_title_stays_text() -> None:
    sample = load_sample()
    page = render(
        replace(sample.make_dashboard(1, 1), title=sample.HOSTILE, summary=sample.REORDERING, notes=[sample.HOSTILE])
    )
    assert [t for t, _ in Tags(page).found].count("script") == 3
    assert "\u202e" not in page
    assert "⟨U+202E⟩" in page


def test_policy_names_every_script_and_style_and_nothing_else(page: str) -> None:
    policy = next(a["content"] for t, a in Tags(page).found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    styles = re.findall(r"<style>(.*?)</style>", page, re.S)

    def hashes(texts: list[str]) -> list[str]:
        return [f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in texts]

    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == hashes(scripts)
    assert rules["style-src"].split() == hashes(styles)
    assert rules["img-src"] == "data:"
    assert rules["base-uri"] == rules["form-action"] == "'none'"


def test_the_script_sets_text_and_never_markup() -> None:
    code = "\n".join((TEMPLATES / name).read_text() for name in SCRIPTS)
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        " eval(",
        "Function(",
        "fetch(",
        "XMLHttp",
    ):
        assert word not in code
    assert sorted(SCRIPTS) == sorted(p.name for p in TEMPLATES.glob("*.js"))


def test_no_text_of_the_page_hides_or_reorders(page: str) -> None:
    assert not re.search("[\u202a-\u202e\u200b\u2066-\u2069\x00-\x08]", page)
    names = [arm["name"] for arm in block(page)["arms"]]
    assert any("⟨U+202E⟩" in name for name in names)
    assert "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2>" in names


def test_sections_without_data_are_left_out() -> None:
    one = data.Measure("a/b/c", "a", groups=["g"])
    page = render(Dashboard("t", [one], [data.Arm("x", ["0"], {"a/b/c": data.Score([0.5])})]))
    ids = {a["id"] for _, a in Tags(page).found if "id" in a}
    assert ids & set(SECTIONS) == {"leaderboard", "scatter", "measures"}


def test_the_page_is_small(page: str) -> None:
    assert len(page.encode()) < 1_500_000


def test_machines_get_strict_json_without_pictures(sample: Dashboard, tmp_path: Path) -> None:
    build_dashboard(sample, str(tmp_path))

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not strict JSON")

    told = json.loads((tmp_path / "dashboard.json").read_text(), parse_constant=refuse)
    assert told["format"] == "curate-dashboard-1"
    assert len(told["arms"]) == 20
    assert set(told["mistakes"][0]["picture"]) == {"mime", "width", "height", "bytes"}
    assert told["arms"][0]["scores"]["imagenet_1k/zero_shot/acc1"]["seeds"] == list(
        sample.arms[0].scores["imagenet_1k/zero_shot/acc1"].seeds
    )


def test_the_same_data_gives_the_same_bytes_in_another_process(sample: Dashboard, tmp_path: Path) -> None:
    here = Path(build_dashboard(sample, str(tmp_path / "a"))).read_bytes()
    code = (
        "import runpy, sys; from curate.eval.report.dashboard import build_dashboard;"
        "build_dashboard(runpy.run_path(sys.argv[1])['make_dashboard'](), sys.argv[2])"
    )
    where = Path(__file__).with_name("dashboard_sample.py")
    subprocess.run([sys.executable, "-c", code, str(where), str(tmp_path / "b")], check=True)
    assert (tmp_path / "b" / "index.html").read_bytes() == here
    assert (tmp_path / "a" / "dashboard.json").read_bytes() == (tmp_path / "b" / "dashboard.json").read_bytes()


def test_a_picture_stands_once_however_many_show_it() -> None:
    shown = Picture(b"png", "image/png", 8, 8)
    arm = data.Arm("x", ["0"], {})
    mistakes = [Mistake("m", str(i), "cat", {"x": Guess("dog", False)}, shown) for i in range(5)]
    told = payload(Dashboard("t", [data.Measure("m", "m", groups=["g"])], [arm], mistakes=mistakes))
    assert len(told["pictures"]) == 1
    assert [m["picture"] for m in told["mistakes"]] == [0] * 5


def test_examples_are_cut_to_what_a_page_holds_measure_by_measure() -> None:
    measures = [data.Measure(name, name, groups=["g"]) for name in "ab"]
    mistakes = [
        Mistake(
            name,
            f"{name}{i}",
            "c",
            {"x": Guess("d", False)},
            Picture(f"{name}{i}".encode(), "image/png", 1, 1),
        )
        for name in "ab"
        for i in range(5)
    ]
    whole = Dashboard("t", measures, [data.Arm("x", ["0"], {})], mistakes=mistakes)
    assert bounded(whole) is whole
    cut = bounded(whole, most=4)
    assert [m.key for m in cut.mistakes] == ["a0", "a1", "b0", "b1"]
    assert "4 of 10 examples" in cut.notes[-1]
    assert [m.key for m in bounded(whole, size=6).mistakes] == ["a0", "a1", "b0"]


def test_tables_of_no_arm_are_no_sections() -> None:
    bare = board(per_class=[data.PerClass("m", [], {})], groups=[data.Groups("m", "f", [], [], {})])
    ids = {a["id"] for _, a in Tags(render(bare)).found if "id" in a}
    assert not ids & {"classes", "groups"}


MEASURE = data.Measure("m", "m", groups=["g"])
ARM = data.Arm("x", ["0", "1"], {"m": data.Score([0.1, 0.2])})


def board(**changed: Any) -> Dashboard:
    return replace(Dashboard("t", [MEASURE], [ARM]), **changed)


PICTURE = Picture(b"x", "image/svg+xml", 1, 1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (board(arms=[]), "no arm"),
        (board(arms=[ARM, ARM]), "there twice"),
        (board(measures=[MEASURE, MEASURE]), "there twice"),
        (board(measures=[data.Measure("m", "m")]), "in no group"),
        (board(control="y"), "the control 'y' is no arm"),
        (board(arms=[replace(ARM, scores={"q": data.Score([0.1, 0.2])})]), "no measure"),
        (board(arms=[replace(ARM, scores={"m": data.Score([0.1])})]), "1 values for 2 seeds"),
        (board(arms=[replace(ARM, scores={"m": data.Score([0.1, float("nan")])})]), "not finite"),
        (board(arms=[replace(ARM, scores={"m": data.Score([0.1, 0.2], data.Span(0.3, 0.2))})]), "interval"),
        (board(arms=[replace(ARM, facts={"cost": float("inf")})]), "not finite"),
        (board(arms=[replace(ARM, report="javascript:alert(1)")]), "not a relative path"),
        (board(arms=[replace(ARM, pool=10, steps=[data.Step("f", 9, 3)])]), "9 rows enter"),
        (board(arms=[replace(ARM, pool=10, steps=[data.Step("f", 10, 11)])]), "keeps 11 of 10"),
        (board(differences=[data.Difference("x", "y", "m", 0.1)]), "no arm"),
        (board(aggregates=[data.Aggregate("a", ["m"], 0)]), "needs 0, has 1"),
        (board(per_class=[data.PerClass("m", ["a"], {"x": [0.1, 0.2]})]), "2 values for 1 classes"),
        (board(confusions=[data.Confusion("m", "x", (), ["a"], [[1, 2]])]), "is not 1 x 1"),
        (board(groups=[data.Groups("m", "f", ["a"], [1, 2], {})]), "not all have 1"),
        (board(curves=[data.Curve("L", "x", "m", [1.0], [])]), "1 places, 0 values"),
        (board(mistakes=[Mistake("m", "k", "c", {}, PICTURE)]), "image/svg"),
        (
            board(mistakes=[Mistake("m", "k", "c", {}, Picture(b"x" * 70_000, "image/png", 1, 1))]),
            "larger than",
        ),
        (
            board(mistakes=[Mistake("m", "k", "c", {}, Picture(b"%d" % i, "image/png", 1, 1)) for i in range(601)]),
            "at most 600",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused(wrong: Dashboard, words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        check_dashboard(wrong)


@pytest.mark.parametrize("path", ["report/index.html", "../run-01/report/index.html", "a b/c.html", "./x", "100%25"])
def test_paths_beside_the_page(path: str) -> None:
    assert is_relative(path)


@given(st.text(max_size=30) | st.sampled_from(["/etc", "//host/x", "a//b", "\\\\host", "data:x", "x\ny", " a", ""]))
def test_a_link_leads_nowhere_else(path: str) -> None:
    if is_relative(path):
        assert ":" not in path
        assert "\\" not in path
        assert not path.startswith(("/", "#", "?"))
        assert path.isprintable()
