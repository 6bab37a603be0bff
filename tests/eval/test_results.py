import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import DataError
from curate.eval.comparison.leaderboard import class_recall, gather, leaderboard, leaderboards, tidy
from curate.eval.comparison.statistics import wilson
from curate.eval.metrics.accuracy import confusion_matrix, per_class_table
from curate.eval.metrics.outcomes import Outcomes
from curate.eval.results.files import FORMAT

NAMES = ["a", "b", "c", "d", "e"]
LABELS = np.repeat(np.arange(5), 8)


def write(folder, right: float, seed: int, **changes) -> str:
    """Results of a model that gets about `right` of 40 samples right, as `evaluate` writes them."""
    rng = np.random.default_rng(seed)
    correct = rng.random(40) < right
    prediction = np.where(correct, LABELS, (LABELS + 1) % 5)
    found = Outcomes(LABELS, prediction, (~correct).astype(np.int64), 5)
    (folder / "outcomes").mkdir(parents=True)
    keys = [f"s{i:07d}" for i in range(40)]
    pq.write_table(pa.table({"key": keys, "correct": found.correct}), folder / "outcomes/set.parquet")
    record = {
        "dataset": "letters",
        "suite": "zero_shot",
        "options": {"type": "zero_shot"},
        "version": 1,
        "split": "test",
        "dataset_digest": "d0",
        "text_hash": "t0",
        "n": 40,
        "classes": 5,
        "chance": 0.2,
        "main_metric": "acc1",
        "metrics": found.metrics(),
        "correct": int(correct.sum()),
        "wilson95": wilson(int(correct.sum()), 40),
        "outcomes": "outcomes/set.parquet",
        "per_class": per_class_table(confusion_matrix(LABELS, prediction, 5), NAMES),
    } | changes
    (folder / "results.json").write_text(json.dumps({"format": FORMAT, "results": [record]}))
    return str(folder)


@pytest.fixture
def folders(tmp_path) -> dict[tuple[str, int], str]:
    arms = {"everything": 0.4, "curated": 0.8, "random": 0.45}
    return {
        (arm, seed): write(tmp_path / arm / str(seed), right, 10 * number + seed)
        for number, (arm, right) in enumerate(arms.items())
        for seed in range(3)
        if (arm, seed) != ("random", 1)
    }


def accuracy(folder: str) -> float:
    return float(np.mean(pq.read_table(f"{folder}/outcomes/set.parquet")["correct"].to_numpy()))


def test_leaderboard_is_paired_with_the_control(folders):
    rows = gather(folders)
    (board,) = leaderboards(rows, control="everything")
    assert (board.dataset, board.suite, board.metric, board.control) == ("letters", "zero_shot", "acc1", "everything")
    assert board.arms[0].name == "curated"
    arms = {arm.name: arm for arm in board.arms}
    curated = [accuracy(folders["curated", s]) for s in range(3)]
    everything = [accuracy(folders["everything", s]) for s in range(3)]
    assert list(arms["curated"].values.values()) == pytest.approx(curated)
    assert arms["curated"].over_seeds.mean == pytest.approx(np.mean(curated))
    assert arms["everything"].comparison is None
    difference = arms["curated"].comparison.over_seeds
    assert difference.mean == pytest.approx(np.mean(np.subtract(curated, everything)))
    assert difference.sign.wins == 3
    assert set(arms["random"].comparison.over_seeds.values) == {0, 2}  # the seeds that both have
    low, high = arms["curated"].comparison.over_classes
    assert low <= difference.mean <= high
    p, q = (arms[a].comparison.over_seeds.p for a in ("curated", "random"))
    assert arms["curated"].comparison.p_holm == pytest.approx(min(2 * p, 1) if p < q else max(p, 2 * q))
    first = arms["curated"].comparison.mcnemar[0]
    assert (first.wins - first.losses) / 40 == pytest.approx(difference.values[0])
    assert arms["curated"].wilson95[1] == wilson(round(40 * curated[1]), 40)
    json.dumps(board.to_json(), allow_nan=False)


def test_one_seed_has_no_interval_but_still_a_test(folders):
    rows = gather({key: folder for key, folder in folders.items() if key[1] == 0})
    board = leaderboard(rows, "letters", "zero_shot")
    assert board.control == "everything"  # the first arm
    best = board.arms[0]
    assert (best.over_seeds.ci95, best.comparison.over_seeds.p, best.comparison.p_holm) == (None, None, None)
    assert best.comparison.mcnemar[0].p < 0.05
    json.dumps(board.to_json(), allow_nan=False)


def test_other_metrics(folders):
    rows = gather(folders)
    board = leaderboard(rows, "letters", "zero_shot", "mean_per_class_recall", "everything")
    assert board.arms[0].wilson95 is None
    assert board.arms[0].comparison.over_classes == pytest.approx(
        leaderboard(rows, "letters", "zero_shot").arms[0].comparison.over_classes  # classes of equal size
    )
    with pytest.raises(DataError, match="unknown metric 'acc2'"):
        leaderboard(rows, "letters", "zero_shot", "acc2")
    with pytest.raises(DataError, match="control arm 'nobody'"):
        leaderboard(rows, "letters", "zero_shot", control="nobody")
    with pytest.raises(DataError, match="no results of knn"):
        leaderboard(rows, "letters", "knn")


def test_null_metrics_leave_an_arm_out(tmp_path):
    rows = gather(
        {("a", 0): write(tmp_path / "a", 0.5, 0), ("b", 0): write(tmp_path / "b", 0.5, 1, metrics={"acc1": None})}
    )
    board = leaderboard(rows, "letters", "zero_shot")
    assert ([arm.name for arm in board.arms], board.without) == (["a"], ["b"])


def test_tidy_and_class_tables(folders):
    rows = gather(folders)
    table = tidy(rows)
    assert len(table) == 8 * 3
    assert table[0] == {
        "arm": "everything", "seed": 0, "dataset": "letters", "suite": "zero_shot", "metric": "acc1",
        "value": accuracy(folders["everything", 0]), "n": 40,
    }  # fmt: skip
    recall = class_recall(rows, "letters", "zero_shot")
    assert np.mean(recall["curated"]) == pytest.approx(np.mean([accuracy(folders["curated", s]) for s in range(3)]))


@pytest.mark.parametrize("change", [{"text_hash": "t1"}, {"dataset_digest": "d1"}, {"options": {"type": "other"}}])
def test_unlike_measurements_are_refused(tmp_path, change):
    with pytest.raises(DataError, match="b, seed 0, and a, seed 0, were measured differently"):
        gather({("a", 0): write(tmp_path / "a", 0.5, 0), ("b", 0): write(tmp_path / "b", 0.5, 1, **change)})


def test_unfinished_and_foreign_results_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"a, seed 2: .*results.json is missing; the evaluation is not finished"):
        gather({("a", 2): str(tmp_path)})
    (tmp_path / "results.json").write_text('{"format": 99, "results": []}')
    with pytest.raises(DataError, match="format 99"):
        gather({("a", 2): str(tmp_path)})
