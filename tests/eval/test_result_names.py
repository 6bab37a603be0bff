"""Every result has a file of its own, whatever it is called, and names no path of the machine."""

import json

import numpy as np
import pytest
from stored_sets import WORDS, Hears, picture

from curate.errors import DataError
from curate.eval.evaluate import evaluate_encoders, open_sets
from curate.eval.probes.logistic import choose_c
from curate.eval.probes.ridge import RidgePath, solve_ridge
from curate.eval.results.files import is_share_right
from curate.eval.suites import parse_suites
from curate.shards.evalsets.write import write_evalset, write_languages


def a_set(folder) -> str:
    samples = [(picture(i), i % 2) for i in range(20)]
    write_evalset(str(folder), WORDS, ["a {c}"], {"train": samples, "test": samples})
    return str(folder)


def run(folders, suites, out, model="m"):
    found = evaluate_encoders({model: Hears()}, open_sets(folders, parse_suites(suites)), {model: str(out)})
    return found[model]["results"]


def test_the_own_language_of_a_multilingual_set_has_a_file_beside_zero_shots(tmp_path):
    folder = a_set(tmp_path / "zoo")
    write_languages(folder, {"en": ([0, 1], ["one", "two"]), "de": ([0], ["eins"])})
    run([folder], ["zero_shot", {"type": "multilingual", "templates": {"*": ["{c}!"]}}], tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out/clip_benchmark").iterdir())
    start = f"zoo_{Hears.digest[:16]}_m"
    assert names == [
        f"{start}_de_zeroshot_classification.json",
        f"{start}_en_zeroshot_classification.json",
        f"{start}_en_zeroshot_classification_multilingual.json",
    ]
    own, other = (json.loads((tmp_path / "out/clip_benchmark" / name).read_text()) for name in names[1:])
    assert own["suite"] == "zero_shot"
    assert (other["suite"], other["language"]) == ("multilingual", "en")


def test_long_names_are_shortened_and_stay_apart(tmp_path):
    folder, model = a_set(tmp_path / ("z" * 128)), "m" * 200
    suites = [{"type": "knn", "name": name} for name in ("k" * 64, "k" * 63 + "2")]
    assert len(run([folder], suites, tmp_path / "out", model)) == 2
    names = [path.name for path in (tmp_path / "out/clip_benchmark").iterdir()]
    assert len(names) == 2
    assert max(map(len, names)) < 240
    assert len(list((tmp_path / "out/outcomes").iterdir())) == 2


def test_history_is_told_by_its_content(tmp_path):
    folder = a_set(tmp_path / "zoo")
    run([folder], ["zero_shot"], tmp_path / "before")
    (record,) = run(
        [folder], [{"type": "fast", "samples": 10, "history": [str(tmp_path / "before")]}], tmp_path / "out"
    )
    assert record["options"]["history"] == [record["facts"]["history"]]
    assert str(tmp_path) not in (tmp_path / "out/results.json").read_text()


def test_share_of_right_answers_is_told_by_its_value():
    record = {"n": 10, "correct": 4, "metrics": {"sup_acc1": 0.4, "sup_real_acc1": 0.5, "acc5": 0.4}}
    assert [m for m in record["metrics"] if is_share_right(record, m)] == ["sup_acc1"]


def test_features_that_are_no_numbers_are_told(tmp_path):
    image, labels = np.full((12, 3), np.nan, np.float32), np.arange(12) % 2
    with pytest.raises(DataError, match="not a number"):
        choose_c((image, labels), (image, labels), 2)
    with pytest.raises(DataError, match="not a number"):
        RidgePath(image, labels, 2)
    with pytest.raises(DataError, match="not a number"):
        solve_ridge(image.astype(np.float64), np.ones((12, 2)), 1.0)
