"""Evaluations that cannot be are told before anything is trained, in one sentence; `curate check` tells all at once."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from evaluation_run import SMALL, image_folder, parquet_set, small_set
from pretrain_run import config, labelled_pool
from rich.console import Console

from curate.errors import ConfigError, CurateError, DataError
from curate.eval.suites import parse_suites
from curate.pipeline.commands.check import check_config
from curate.pipeline.config import load
from curate.pipeline.plan import make_plan
from curate.pipeline.stages.evaluation import EvalCheckStage, EvalStage, _check, all_sources
from curate.shards.demo.captions import WORDS
from curate.shards.evalsets.builtin import BUILTIN
from curate.shards.evalsets.source import EvalSource
from curate.shards.evalsets.write import write_retrieval


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labelled_pool(tmp_path / "pool", 1, 3)
    labelled_pool(tmp_path / "trusted", 1, 3, 9)
    return tmp_path


def evaluated(folder: Path, suites: list[Any], data: Any, **more: Any) -> str:
    option = {"suites": suites, "data": data, **more.pop("eval_more", {})}
    return config(
        folder, {"samples_seen": 32, "subsets": ["everything"], **more.pop("pretrain", {})}, eval=option, **more
    )


def checked(path: str) -> str:
    out = Console(file=io.StringIO(), width=200)
    check_config(path, [], out)
    return out.file.getvalue()  # type: ignore[attr-defined]


# --- told by names alone


PLANNED: list[tuple[list[Any], Any, str]] = [
    (["zero_shot"], ["digit"], "'digit'"),
    (["zero_shot"], ["no/such/folder"], "unknown file, folder or built-in evaluation set"),
    (["zero_shot", "zero_shot"], ["digits"], "two are called 'zero_shot'; give one of them a `name`"),
    (["supervised"], ["digits"], "needs a classifier with named classes"),
    ([{"type": "fast", "history": ["gone/*"]}], ["digits"], "'fast': there is nothing at gone/*"),
]


@pytest.mark.parametrize(("suites", "data", "said"), PLANNED)
def test_told_while_planning(folder, suites, data, said):
    with pytest.raises(ConfigError) as told:
        make_plan(load(evaluated(folder, suites, data))[0])
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_misspelt_built_in_set_is_told_with_the_nearest_name(folder):
    with pytest.raises(ConfigError, match="did you mean 'digits_retrieval'"):
        make_plan(load(evaluated(folder, ["retrieval"], ["digits_retreival"]))[0])


@pytest.mark.parametrize("suite", ["retrieval", "zero_shot", "compositional", "multilingual", "fast"])
def test_suites_of_texts_refuse_image_models(folder, suite):
    recipe = {"type": "supervised", "labels": {"column": "digit"}}
    with pytest.raises(ConfigError, match=f"{suite}' compares pictures with texts, and there is no text tower"):
        make_plan(load(evaluated(folder, [suite], ["digits"], pretrain={"recipe": recipe}))[0])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"suites": ["zeroshot"], "data": ["digits"]}, "zero_shot"),
        ({"suites": ["zero_shot"], "data": []}, "eval.data"),
        ({"suites": [{"type": "knn", "kk": 3}], "data": ["digits"]}, "kk"),
        ({"data": [{"path": "x", "layuot": "folder"}]}, "layuot"),
        ({"data": ["digits"], "control": "thing"}, "eval.control"),
        ({"data": ["digits"], "encoders": ["thing"]}, "eval.encoders"),
        ({"data": ["digits"], "models_per_pass": 0}, "models_per_pass"),
        ({"suites": [{"type": "zero_shot", "templates": ["no place"]}], "data": ["digits"]}, "no place"),
    ],
)
def test_told_by_the_config(folder, value, said):
    with pytest.raises(ConfigError) as told:
        load(config(folder, {"samples_seen": 32}, eval=value))
    assert said in str(told.value)


# --- told by what lies there


def torn(folder: Path) -> Path:
    made = small_set(folder)
    tar = made / "test" / "0.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    return made


def without_tar(folder: Path) -> Path:
    made = small_set(folder)
    (made / "test" / "0.tar").unlink()
    return made


def without_templates(folder: Path) -> Path:
    made = small_set(folder)
    (made / "zeroshot_classification_templates.txt").unlink()
    return made


def of_other_labels(folder: Path) -> Path:
    """Fewer class names than labels."""
    made = small_set(folder)
    (made / "classnames.txt").write_text("zero\none\n")
    return made


DATA: list[tuple[Callable[[Path], Path], list[Any], str]] = [
    (
        small_set,
        ["zero_shot", "retrieval"],
        "the suite 'retrieval' measures retrieval sets, and none of the sets is one",
    ),
    (small_set, ["zero_shot", {"type": "knn", "sets": ["other*"]}], "called ['other*'], and none of the sets is one"),
    (small_set, ["linear_probe"], "no split 'train'"),
    (small_set, [{"type": "zero_shot", "split": "val"}], "no split 'val'"),
    (torn, ["zero_shot"], "0.tar"),
    (without_tar, ["zero_shot"], "0.tar"),
    (without_templates, ["zero_shot"], "has no templates"),
    (of_other_labels, ["zero_shot"], "class"),
]


@pytest.mark.parametrize(("make", "suites", "said"), DATA)
def test_told_by_the_check_of_the_data(tmp_path, make, suites, said):
    with pytest.raises(CurateError) as told:
        _check(None, [EvalSource(path=str(make(tmp_path)))], tuple(parse_suites(suites)))  # type: ignore[arg-type]
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_set_that_no_suite_measures_is_told(tmp_path):
    write_retrieval(str(tmp_path / "wds_pairs"), {"test": [(body, ["a thing"]) for body, _ in SMALL]})
    sources = [EvalSource(path=str(small_set(tmp_path))), EvalSource(path=str(tmp_path / "wds_pairs"))]
    with pytest.raises(ConfigError, match=r"no suite measures .*wds_pairs, a retrieval set"):
        _check(None, sources, tuple(parse_suites(["zero_shot"])))  # type: ignore[arg-type]


def test_two_sets_of_one_name_are_told(tmp_path):
    sources = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sources.append(EvalSource(path=str(small_set(tmp_path / name))))
    with pytest.raises(DataError, match="are both called 'small'; give one a `name`"):
        _check(None, sources, tuple(parse_suites(["zero_shot"])))  # type: ignore[arg-type]
    renamed = [sources[0], sources[1].model_copy(update={"name": "other"})]
    assert len(_check(None, renamed, tuple(parse_suites(["zero_shot"])))["sets"]) == 2  # type: ignore[arg-type]


def test_check_tells_every_problem_at_once_and_describes_the_sets(folder):
    good, bad, empty = small_set(folder, "wds_good"), small_set(folder, "wds_bad"), folder / "nothing"
    (bad / "test" / "0.tar").unlink()
    empty.mkdir()
    said = checked(evaluated(folder, ["zero_shot"], [str(good), "digits"]))
    assert "ok  evaluation set good: classification; test 20; 10 classes; 1 templates" in said
    with pytest.raises(ConfigError) as told:
        checked(evaluated(folder, ["zero_shot"], [str(good), str(bad), str(empty), {"path": f"{good}/"}, "digitz"]))
    lines = str(told.value).splitlines()
    assert any("0.tar" in line and "missing" in line for line in lines)
    assert any(str(empty) in line for line in lines)
    assert any("both called 'good'" in line for line in lines)
    assert any("did you mean 'digits'" in line for line in lines)
    assert len(lines) == 4
    with pytest.raises(ConfigError, match="wds_good' is named twice"):
        make_plan(load(evaluated(folder, ["zero_shot"], [str(good), str(good)]))[0])


@pytest.mark.parametrize("data", ["wds_small", "digits"])
def test_check_knows_that_suites_and_sets_do_not_fit(folder, data):
    place = str(small_set(folder)) if data == "wds_small" else data
    with pytest.raises(ConfigError, match="the suite 'retrieval' measures retrieval sets"):
        checked(evaluated(folder, ["zero_shot", "retrieval"], [place]))


# --- layouts


def test_every_layout_is_planned_and_described(folder):
    texts = {"classnames": list(WORDS), "templates": ["a {c}"]}
    data = [
        str(small_set(folder)),
        {"path": str(image_folder(folder)), "templates": ["a {c}"]},
        {"path": str(parquet_set(folder)), "image": "image", "label": "label", **texts},
    ]
    said = checked(evaluated(folder, ["zero_shot"], data))
    described = [line for line in said.splitlines() if "evaluation set" in line]
    assert [line.split()[3].rstrip(":") for line in described] == ["small", "pictures", "table"]
    assert all("test 20" in line for line in described)


# --- what a plan is


def stages(path: str) -> Any:
    return make_plan(load(path)[0])


def test_sets_are_checked_before_a_training_and_the_check_needs_nothing_trained(folder):
    plan = stages(evaluated(folder, ["zero_shot"], ["digits", str(small_set(folder))]))
    (check,) = [s for s in plan.stages if isinstance(s, EvalCheckStage)]
    assert set(check.inputs) == {"evalset/digits"}
    (eval_stage,) = [s for s in plan.stages if isinstance(s, EvalStage)]
    assert eval_stage.inputs["check"] is check


def test_a_fingerprint_knows_what_is_measured_and_not_how_it_is_scheduled(folder):
    made = small_set(folder)

    def fingerprint(suites: list[Any], **more: Any) -> str:
        plan = stages(evaluated(folder, suites, [str(made)], eval_more=more))
        return plan.named("eval/everything").fingerprint

    first = fingerprint(["zero_shot"])
    assert fingerprint(["zero_shot"], models_per_pass=1) == first
    assert fingerprint(["zero_shot"], control="everything") == first
    assert fingerprint([{"type": "zero_shot", "canonicalize": True}]) != first
    (made / "zeroshot_classification_templates.txt").write_text("the {c}\n")
    assert fingerprint(["zero_shot"]) != first


def test_options_of_built_in_sets_count_and_sets_keep_their_order(folder):
    """A name and templates of a built-in set's own, after a set of the config."""
    made, words = str(small_set(folder)), {"path": "digits", "name": "scans", "templates": ["the digit {c}"]}
    plans = [stages(evaluated(folder, ["zero_shot"], data)) for data in ([made, words], [made, "digits"])]
    first, second = (plan.named("eval/everything") for plan in plans)
    assert first.fingerprint != second.fingerprint
    written = SimpleNamespace(data=str(folder / "made"), summary={"folder": "wds_digits"})
    BUILTIN["digits"](str(folder / "made" / "wds_digits"))
    work: Any = SimpleNamespace(inputs={"evalset/digits": written})
    small, scans = (one for source in all_sources(work, first.sources) for one in source.open())
    assert small.name == "small"
    assert (scans.name, scans.templates) == ("scans", ("the digit {c}",))


def test_templates_in_a_file_are_part_of_what_was_asked(folder):
    file, made = folder / "words.txt", small_set(folder)
    found = []
    for text in ("a {c}\n", "one {c}\n"):
        file.write_text(text)
        suite = {"type": "zero_shot", "templates": str(file)}
        found.append(stages(evaluated(folder, [suite], [str(made)])).named("eval/everything").fingerprint)
    assert found[0] != found[1]


def test_suites_and_sets_have_json_that_is_strict(folder):
    plan = stages(evaluated(folder, ["zero_shot", {"type": "knn", "k": [3]}], ["digits"]))
    json.dumps(plan.named("eval/everything").identity(), allow_nan=False)
