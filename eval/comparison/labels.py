"""What people call a metric: one wording for tables, plots and tabs, wherever a metric is shown.

Names of metrics are other tools' (``lp_acc1``, ``acc_wg``) and unique over suites, so they repeat the suite's name; a
label has the suite beside it and need not.
"""

from __future__ import annotations

import re

_PREFIX = re.compile(r"(lp|knn|sup|ridge|fewshot|vtab1k|fast)_")
_WHOLE = {
    "mean_average_precision": "mAP",
    "mean_average_precision_present": "mAP of present classes",
    "mean_per_class_recall": "mean per-class recall",
    "acc": "accuracy",
    "acc_avg": "mean accuracy",
    "acc_wg": "worst-group accuracy",
    "avg_jaccard_score": "mean jaccard score",
}
_WORST = re.compile(r"acc_worst_(.+)")
_TOP = re.compile(r"\b(?:acc|top)([15])\b")
_SUITES = {"knn": "kNN", "vtab1k": "VTAB-1k"}


def metric_words(metric: str) -> str:
    """A metric's name in words, without its suite's: ``lp_acc1`` is "top-1"."""
    plain = _PREFIX.sub("", metric, count=1)
    what, colon, of = plain.partition(":")
    if what in _WHOLE:
        words = _WHOLE[what]
    elif found := _WORST.fullmatch(what):
        words = f"worst {found[1]} accuracy".replace("_", " ")
    else:
        words = re.sub(r"\bacc\b", "accuracy", _TOP.sub(r"top-\1", what.replace("_", " ")))
    return words + (f", {of}" if colon else "")


def suite_words(suite: str) -> str:
    """A suite's name as a label has it: "zero-shot"."""
    return _SUITES.get(suite, suite.replace("_", "-"))


def measure_label(dataset: str, suite: str, metric: str, variant: int = 1) -> str:
    """Heading of a column: set, suite, metric; the suite is left out where the metric says it.

    Args:
        variant: 2 and more for further ways in which the same set and suite were measured.
    """
    words = metric_words(metric)
    if not re.search(rf"\b{re.escape(suite.replace('_', ' '))}\b", words):
        words = f"{suite_words(suite)} {words}"
    return f"{dataset}, {words}" + (f" ({variant})" if variant > 1 else "")
