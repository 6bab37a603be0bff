import numpy as np
import pyarrow as pa
import pytest
from compare_sample import Split, answers
from hypothesis import given
from hypothesis import settings as configured
from hypothesis import strategies as st

from curate.errors import DataError
from curate.eval.comparison.contributions import contributions, difference, estimate, mean_of
from curate.eval.comparison.recomputed import difference_interval, redraw
from curate.eval.comparison.recomputed import interval as recomputed_interval
from curate.eval.comparison.statistics import wilson
from curate.eval.metrics.accuracy import mean_per_class_recall
from curate.eval.metrics.groups import macro_averages

# 4 pictures of classes 0 0 1 1; right, wrong, right, right; the second is third-best
SMALL = pa.table(
    {
        "key": ["a", "b", "c", "d"],
        "label": [0, 0, 1, 1],
        "prediction": [0, 1, 1, 1],
        "correct": [True, False, True, True],
        "rank": [0, 2, 0, 0],
        "group:region": [0, 1, 1, -1],
    }
)


@pytest.mark.parametrize("prefix", ["", "lp_", "knn_", "sup_", "ridge_", "vtab1k_", "fast_", "vtab1k_lp_"])
def test_metrics_of_a_classification(prefix):
    assert contributions(SMALL, f"{prefix}acc1").estimate == 3 / 4
    assert contributions(SMALL, f"{prefix}acc5").estimate == 1.0
    recall = contributions(SMALL, f"{prefix}mean_per_class_recall")
    assert recall.estimate == pytest.approx((1 / 2 + 1) / 2)
    assert recall.stratum.tolist() == [0, 0, 1, 1]


def test_groups():
    assert contributions(SMALL, "acc_region:1").estimate == 1 / 2
    assert contributions(SMALL, "acc_region:1").keys.to_pylist() == ["b", "c"]
    assert contributions(SMALL, "acc_top5_region:1").estimate == 1.0
    assert contributions(SMALL, "acc_avg").estimate == 3 / 4
    assert contributions(SMALL, "acc_region:7") is None  # no such picture


@pytest.mark.parametrize(
    "metric", ["acc_wg", "F1-macro_all", "mean_average_precision", "sup_real_acc1", "key", "label"]
)
def test_what_is_no_mean_of_rows_has_none(metric):
    assert contributions(SMALL, metric) is None


def test_retrieval_keeps_a_picture_and_its_captions_together():
    table = pa.table(
        {
            "key": ["p0", "p1", "c0", "c1", "c2"],
            "direction": pa.array(["text", "text", "image", "image", "image"]).dictionary_encode(),
            "rank": [0, 3, 0, 1, 0],
            "owner": [0, 1, 0, 0, 1],
        }
    )
    assert contributions(table, "text_retrieval_recall@1").estimate == 1 / 2
    assert contributions(table, "image_retrieval_recall@1").estimate == pytest.approx(2 / 3)
    assert contributions(table, "image_retrieval_recall@5").estimate == 1.0
    both = contributions(table, "mean_recall@1")
    assert both.estimate == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert both.cluster.tolist() == [0, 1, 0, 0, 1]
    assert not both.plain


def test_languages():
    table = pa.table(
        {"key": ["a", "b", "a"], "language": ["en", "en", "cn"], "correct": [True, False, True], "rank": [0, 1, 0]}
    )
    assert contributions(table, "acc1:en").estimate == 1 / 2
    assert contributions(table, "acc1:en").keys.to_pylist() == ["a", "b"]
    mean = contributions(table, "acc1:mean")
    assert mean.estimate == pytest.approx((1 / 2 + 1) / 2)
    assert mean.cluster.tolist() == [0, 1, 0]


def test_draws_of_shots():
    table = SMALL.append_column("right_draws", pa.array([3, 0, 1, 2]))
    assert contributions(table, "fewshot_acc1@5", 0.5).value.tolist() == pytest.approx([1, 0, 1 / 3, 2 / 3])
    assert contributions(table, "fewshot_acc1@1", 0.25) is None  # the rows are of other shots


def test_associations_and_pairs():
    table = pa.table(
        {"key": ["x", "y", "z"], "jaccard": [1.0, 0.5, 0.0], "candidates": [5, 10, 12], "correct": [True, False, True]}
    )
    assert contributions(table, "avg_jaccard_score").estimate == 0.5
    assert contributions(table, "jaccard_score_10-12").estimate == 0.25
    assert contributions(table, "jaccard_score_5").estimate == 1.0
    assert contributions(table, "acc").estimate == pytest.approx(2 / 3)


@configured(max_examples=30, deadline=None)
@given(n=st.integers(10, 300), classes=st.integers(2, 12), right=st.floats(0.1, 0.9), seed=st.integers(0, 1000))
def test_they_give_the_metrics_that_suites_report(n, classes, right, seed):
    found = answers(n, classes, right, seed)
    table = found.table(Split(n))
    for metric, value in found.metrics("lp_").items():
        if value is not None:
            assert contributions(table, metric).estimate == pytest.approx(value, abs=1e-12)


def test_intervals_say_which_kind_they_are():
    table = answers(400, 10, 0.6, 0).table(Split(400))
    plain = estimate(contributions(table, "acc1"))
    assert (plain.interval, plain.kind) == (wilson(round(plain.value * 400), 400), "wilson")
    macro = estimate(contributions(table, "mean_per_class_recall"))
    assert macro.kind == "bca"
    assert macro.interval == pytest.approx(plain.interval, abs=0.015)  # classes of equal size
    assert macro == estimate(contributions(table, "mean_per_class_recall"))  # a function of its arguments
    assert estimate(contributions(table, "mean_per_class_recall"), draw=False).kind == "normal"


def test_a_spread_that_was_not_seen_is_not_none_at_all():
    table = answers(200, 4, 0.5, 0).table(Split(200))
    perfect = table.set_column(table.column_names.index("prediction"), "prediction", table["label"])
    found = estimate(contributions(perfect, "mean_per_class_recall"))
    assert (found.value, found.interval, found.kind) == (1.0, wilson(200, 200), "wilson_effective")


def test_other_samples_are_refused_by_name():
    table = answers(20, 4, 0.5, 0).table(Split(20))
    first = contributions(table, "acc1")
    moved = contributions(table.take([0, 1, 3, 2, *range(4, 20)]), "acc1")
    with pytest.raises(DataError, match="sample 2 is 's0000002' in one and 's0000003' in the other"):
        difference(first, moved, ("a", "b"))
    with pytest.raises(DataError, match=r"\(20 and 15\).*sample 15 is 's0000015' in one and nothing"):
        difference(first, contributions(table.slice(0, 15), "acc1"))
    assert mean_of([first, first]).value.tolist() == first.value.tolist()


def test_same_samples_with_other_labels_are_refused():
    table = answers(20, 4, 0.5, 0).table(Split(20))
    other = table.set_column(1, "label", pa.array([0] * 5 + [1] * 15))
    recall = "mean_per_class_recall"
    with pytest.raises(DataError, match="other labels"):
        difference(contributions(table, recall), contributions(other, recall))


def test_worst_group_is_recomputed():
    rng = np.random.default_rng(0)
    n = 900
    group = np.repeat([0, 1, -1], n // 3)
    right = rng.random(n) < np.where(group == 1, 0.4, 0.8)
    table = pa.table(
        {"key": [str(i) for i in range(n)], "correct": right, "rank": np.where(right, 0, 3), "group:region": group}
    )
    value = right[group == 1].mean()
    low, high = recomputed_interval(table, "acc_wg", value)
    assert (low, high) == pytest.approx(wilson(round(value * 300), 300), abs=0.02)  # the other group is far away
    assert recomputed_interval(table, "acc_worst_region", value) == (low, high)
    assert recomputed_interval(table, "acc_wg", value + 0.1) is None  # not of these rows
    assert recomputed_interval(table, "acc_worst_year", value) is None
    better = table.set_column(1, "correct", pa.array(right | (rng.random(n) < 0.3)))
    other = better["correct"].to_numpy()[group == 1].mean()
    gap = difference_interval([better], [table], "acc_wg", ([other], [value]))
    assert 0 < gap[0] < other - value < gap[1]


def test_macro_f1_is_recomputed():
    found = answers(600, 6, 0.7, 1)
    table = found.table(Split(600))
    for metric, value in macro_averages(found.labels, found.prediction, 6).items():
        drawn = redraw([table, table], metric, [value, value], draws=200)
        assert drawn.shape == (200, 2)
        assert (drawn[:, 0] == drawn[:, 1]).all()  # the same draws for both
        assert drawn[:, 0].mean() == pytest.approx(value, abs=0.01)
        assert drawn[:, 0].std() == pytest.approx(np.sqrt(0.7 * 0.3 / 600), rel=0.3)
        assert recomputed_interval(table, metric, value + 0.1) is None


def test_macro_f1_of_a_draw_is_sklearns():
    from sklearn.metrics import f1_score

    label, said = np.array([0, 0, 1, 3, 3]), np.array([0, 1, 1, 2, 3])
    table = pa.table({"key": list("abcde"), "label": label, "prediction": said})
    value = f1_score(label, said, average="macro")
    rng = np.random.Generator(np.random.Philox(key=0))
    cells = rng.multinomial(5, np.full(5, 0.2), size=50)  # the five rows differ, in the order of (label, prediction)
    rows = np.lexsort((said, label))
    expected = [
        f1_score(np.repeat(label[rows], c), np.repeat(said[rows], c), average="macro", zero_division=0) for c in cells
    ]
    assert redraw([table], "F1-macro_all", [value], draws=50)[:, 0] == pytest.approx(expected)


def test_mean_per_class_recall_ignores_absent_classes():
    table = pa.table({"key": list("abc"), "label": [0, 0, 7], "prediction": [0, 7, 7], "correct": [True, False, True]})
    expected = mean_per_class_recall(np.array([0, 0, 7]), np.array([0, 7, 7]))
    assert contributions(table, "mean_per_class_recall").estimate == expected
