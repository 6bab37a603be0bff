"""`zero_shot`: name the class whose prompts lie nearest (Radford et al., ICML 2021, section 3.1).

The protocol of CLIP_benchmark and DataComp: prompts from the set's own templates, ensembled in embedding space; the
prediction is the class of the largest cosine (the logit scale does not change ranks). A set without templates is an
error, never ImageNet's 80 in silence; `prompted.py` has the options of the words. For DataComp's tasks the main metric
is the one that its task list gives, and sets that know groups of their pictures get group metrics beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from ...errors import DataError
from ...shards.evalsets.base import EvalSet, EvalSplit
from ..metrics.accuracy import BLOCK
from ..metrics.groups import GroupedOutcomes, group_metrics, macro_averages
from ..metrics.outcomes import outcomes
from ..tasks.by_name import task_of
from ..tasks.prompts import ensemble
from .base import SUITES, EvalContext, SuiteResult
from .prompted import PromptedSuite

MACRO = ("F1-macro_all", "recall-macro_all")  # need no groups, although only tasks with groups have them


@SUITES.register
class ZeroShot(PromptedSuite):
    """Classify by the nearest prompt; nothing is learned."""

    task: ClassVar[str] = "zeroshot_classification"
    main_metric: ClassVar[str] = "acc1"

    type: Literal["zero_shot"] = "zero_shot"

    def main_metric_of(self, evalset: EvalSet) -> str:
        """DataComp's main metric for its tasks; else top-1 accuracy."""
        task = task_of(evalset)
        return self.main_metric if task is None or task.metric is None else task.metric

    def check_splits(self, evalset: EvalSet, splits: Mapping[str, EvalSplit]) -> None:
        """Raise DataError also if the task's main metric is about groups and there are none."""
        super().check_splits(evalset, splits)
        main = self.main_metric_of(evalset)
        if main.startswith("acc_") and splits[self.split].groups is None:
            raise _without_groups(evalset, main)

    def evaluate(self, context: EvalContext) -> SuiteResult:
        evalset, task = context.evalset, task_of(context.evalset)
        image, labels = context.features(self.split)
        texts = self.texts_of(evalset)
        weights = ensemble(context.text, texts.prompts, texts.classnames, evalset.folder)
        found = outcomes((image[start : start + BLOCK] @ weights.T for start in range(0, len(image), BLOCK)), labels)
        metrics, main = found.metrics(), self.main_metric_of(evalset)
        groups, name = context.split(self.split).groups, task.key if task else evalset.name
        if groups is not None:
            metrics |= group_metrics(found, groups, texts.classnames, name)[0]
            found = GroupedOutcomes.of(found, groups, name)
        elif main in MACRO:
            metrics |= macro_averages(found.labels, found.prediction, len(texts.classnames))
        if main not in metrics:
            raise _without_groups(evalset, main)
        whole = task is not None and (len(found), len(evalset.classnames)) == (task.size, task.classes)
        chance = task.chance if task is not None and whole else None
        return SuiteResult(metrics, found, {"prompts": texts.count}, chance=chance)


def _without_groups(evalset: EvalSet, main: str) -> DataError:
    return DataError(
        f"{evalset.folder}: the main metric of {evalset.name}, {main}, is about groups, and the samples have none "
        "(`npy` members); add them, or give the set another `name`"
    )
