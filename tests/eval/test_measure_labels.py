"""What people call a metric, in tables, plots and tabs alike."""

import pytest

from curate.eval.comparison.labels import measure_label, metric_words


@pytest.mark.parametrize(
    ("suite", "metric", "label"),
    [
        ("zero_shot", "acc1", "pets, zero-shot top-1"),
        ("zero_shot", "acc5", "pets, zero-shot top-5"),
        ("linear_probe", "lp_acc1", "pets, linear-probe top-1"),
        ("ridge_probe", "ridge_acc1", "pets, ridge-probe top-1"),
        ("knn", "knn_acc1@20", "pets, kNN top-1@20"),
        ("fewshot", "fewshot_acc1@10", "pets, fewshot top-1@10"),
        ("fast", "fast_acc1", "pets, fast top-1"),
        ("supervised", "sup_acc1", "pets, supervised top-1"),
        ("retrieval", "mean_recall@1", "pets, retrieval mean recall@1"),
        ("retrieval", "image_retrieval_recall@5", "pets, image retrieval recall@5"),
        ("compositional", "acc", "pets, compositional accuracy"),
        ("compositional", "text_acc", "pets, compositional text accuracy"),
        ("multi_label", "mean_average_precision", "pets, multi-label mAP"),
        ("multilingual", "acc1:de", "pets, multilingual top-1, de"),
        ("zero_shot", "acc_wg", "pets, zero-shot worst-group accuracy"),
        ("zero_shot", "acc_worst_income_group", "pets, zero-shot worst income group accuracy"),
        ("my_own", "something_new", "pets, my-own something new"),
    ],
)
def test_labels_say_set_suite_and_metric_once(suite: str, metric: str, label: str) -> None:
    assert measure_label("pets", suite, metric) == label
    assert measure_label("pets", suite, metric, variant=2) == f"{label} (2)"


def test_only_one_prefix_is_the_suites() -> None:
    assert metric_words("lp_fast_acc1") == "fast top-1"
    assert metric_words("accuracy") == "accuracy"
