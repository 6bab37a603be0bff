"""Four questions to the same faces: by hand, on made-up features."""

import io
import json

import numpy as np
import pytest
from given_features import GivenTexts, MemorySet, MemorySplit, context
from PIL import Image

from curate.errors import DataError
from curate.eval.embedding.features import Features
from curate.eval.opened import open_sets
from curate.eval.results.files import write_result
from curate.eval.suites import EvalContext, parse_suites
from curate.shards.evalsets.base import Groups
from curate.shards.evalsets.write import write_groups

RACES, GENDERS, AGES = ("White", "Black", "Asian"), ("male", "female"), ("young", "old")
TOXIC = tuple(f"t{i}" for i in range(21))
LINES = tuple(f"{q}:{c}" for q, some in (("age", AGES), ("gender", GENDERS), ("race", RACES)) for c in some)
CLASSES = LINES + tuple(f"toxic: {c}" for c in TOXIC)
TEMPLATES = tuple(f"{q}:a {q} {{c}}" for q in ("age", "gender", "race", "toxic"))
AXES = np.eye(28, dtype=np.float32)
WORDS = dict(zip([f"a {line.split(':')[0]} {line.split(':')[1].strip()}" for line in CLASSES], AXES, strict=True))

#       truth: race, gender, age   said: race, gender, age, toxic
FACES = [
    ((0, 0, 0), (0, 0, 0, 3)),
    ((0, 1, 1), (0, 1, 0, 18)),
    ((1, 0, 0), (2, 0, 0, 14)),
    ((1, 1, 1), (1, 0, 1, 20)),
]


def feature(said):
    race, gender, age, toxic = said
    return AXES[[age, 2 + gender, 4 + race, 7 + toxic]].sum(0) / 2


def faces(classes=CLASSES, templates=TEMPLATES, fields=("race", "gender", "age"), truths=None) -> MemorySet:
    values = np.array([truth for truth, _ in FACES] if truths is None else truths, np.int64)
    split = MemorySplit(4, classes=np.zeros(4, np.int64), groups=Groups(fields, values[:, : len(fields)], {}))
    return MemorySet("fairness-fairface", "/faces", classes, templates, one=split)


def run(evalset: MemorySet):
    image = np.stack([feature(said) for _, said in FACES])
    return parse_suites(["fairness"])[0].evaluate(context(evalset, image, GivenTexts(WORDS)))


def test_golden_by_hand():
    evalset = faces()
    (suite,) = parse_suites(["fairness"])
    assert suite.measures(evalset)
    assert set(suite.texts(evalset, evalset.split)) == set(WORDS)
    assert suite.main_metric_of(evalset) is None
    found = run(evalset)
    metrics = found.metrics
    json.dumps(metrics, allow_nan=False)
    # race: wrong for the third; white 2 of 2, all others 1 of 2
    assert (metrics["acc_race_avg"], metrics["acc_race_wg"]) == (0.75, 0.5)
    assert (metrics["acc_race_race_binary:0"], metrics["acc_race_race_binary:1"]) == (1.0, 0.5)
    assert metrics["count_race_binary:1"] == 2
    # gender: wrong for the fourth; age: wrong for the second
    assert (metrics["acc_gender_avg"], metrics["acc_gender_race_binary:1"]) == (0.75, 0.5)
    assert (metrics["acc_age_avg"], metrics["acc_age_race_binary:0"]) == (0.75, 0.5)
    assert metrics["acc_gender_x_race:1_gender:1"] == 0.0
    assert metrics["acc_gender_x_race:1_gender:0"] == 1.0
    assert metrics["acc_gender_x_race:2_gender:0"] is None
    assert metrics["acc_gender_x_wg"] == 0.0
    # 18 and 20 are crimes, 14 is an animal, 3 is a person; the worst group is the one most often insulted
    assert (metrics["toxicity_crime_avg"], metrics["toxicity_crime_wg"]) == (0.5, 0.5)
    assert (metrics["toxicity_nonhuman_avg"], metrics["toxicity_nonhuman_wg"]) == (0.25, 0.5)
    assert metrics["toxicity_nonhuman_race:0"] == 0.0
    assert metrics["toxicity_nonhuman_race:2"] is None
    assert found.facts == {"questions": {"age": 2, "gender": 2, "race": 3, "toxic": 21}}
    assert found.outcomes.correct.tolist() == [True, False, False, False]


def test_rows_and_group_table():
    evalset = faces()
    found = run(evalset).outcomes
    table = found.table(evalset.one).to_pydict()
    assert table["toxic"] == [3, 18, 14, 20]
    assert table["gender"] == [0, 1, 0, 0]
    assert table["acc_gender_avg"] == [True, True, True, False]
    assert table["group:race_binary"] == [0, 0, 1, 1]
    rows = json.loads(json.dumps(found.tables(evalset, evalset.one), allow_nan=False))["groups"]
    crossed = [(r["name"], r["n"], r["acc"], r["worst"]) for r in rows if r["metric"] == "acc_gender_x"]
    assert crossed == [
        ("White, male", 1, 1.0, False), ("White, female", 1, 1.0, False),
        ("Black, male", 1, 1.0, False), ("Black, female", 1, 0.0, True),
    ]  # fmt: skip
    assert [r["name"] for r in rows if r["metric"] == "acc_race"] == ["white", "all others"]


def test_a_given_binary_field_is_taken_and_unnamed_races_are_not_guessed():
    truths = [(*truth, number) for (truth, _), number in zip(FACES, (1, 1, 0, 0), strict=True)]
    given = run(faces(fields=("race", "gender", "age", "race_binary"), truths=truths)).metrics
    assert given["acc_race_race_binary:0"] == 0.5
    unnamed = tuple(c.replace("White", "Group one") for c in CLASSES)
    words = {t.replace("White", "Group one"): v for t, v in WORDS.items()}
    image = np.stack([feature(said) for _, said in FACES])
    metrics = parse_suites(["fairness"])[0].evaluate(context(faces(unnamed), image, GivenTexts(words))).metrics
    assert metrics["acc_race_race:1"] == 0.5
    assert "acc_race_race_binary:0" not in metrics


def test_a_part_of_the_questions_is_enough():
    found = run(faces(LINES[2:4], TEMPLATES[1:2])).metrics
    assert found["acc_gender_avg"] == 0.75
    assert not [k for k in found if k.startswith(("acc_age", "toxicity"))]


def test_other_sets_are_passed_over_and_what_is_missing_is_named():
    (suite,) = parse_suites(["fairness"])
    assert not suite.measures(faces(("cat", "dog")))
    assert not suite.measures(faces(("time: noon", "age:old")))
    with pytest.raises(DataError, match="no template that begins"):
        suite.templates_for(faces(templates=TEMPLATES[:2]))
    with pytest.raises(DataError, match="18 classes of 'toxic'"):
        suite.templates_for(faces(CLASSES[:-3]))
    with pytest.raises(DataError, match="no field 'age', only race, gender"):
        run(faces(fields=("race", "gender")))
    with pytest.raises(DataError, match="gender 0 to 5 for 2 classes"):
        run(faces(truths=[(0, 5, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0)]))
    without = faces()
    without.one.groups = None
    with pytest.raises(DataError, match="no metadata"):
        run(without)


def test_a_set_on_disk_becomes_a_result_without_a_main_metric(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    fields = {"race": RACES, "gender": GENDERS, "age": AGES}
    samples = [(file.getvalue(), 0, truth) for truth, _ in FACES]
    write_groups(str(tmp_path / "faces"), CLASSES, TEMPLATES, fields, {"test": samples})
    (one,) = open_sets([str(tmp_path / "faces")], parse_suites(["fairness"]))
    image = np.stack([feature(said) for _, said in FACES])
    features = Features(image, one.splits["test"].labels)
    setting = EvalContext(one.evalset, one.splits.__getitem__, lambda _: features, GivenTexts(WORDS))  # type: ignore[arg-type]
    result = one.suites[0].evaluate(setting)
    written = write_result(str(tmp_path / "out"), "0" * 32, "model", one, one.suites[0], result)
    assert written.record["main_metric"] is None
    assert written.record["chance"] is None
    assert written.record["metrics"]["acc_race_wg"] == 0.5
    json.dumps([written.record, written.tables], allow_nan=False)
