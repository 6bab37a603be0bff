"""`vtab`: VTAB-1k (Zhai et al., arXiv 1910.04867): 19 tasks, 1,000 training images each, top-1 on whole test splits.

Two protocols. ``linear``: logistic regression on frozen features; C is chosen on the 800 and 200 images that VTAB sets
apart (`logistic.choose_c`), the last fit is on all 1,000. ``finetune``: VTAB's light-weight recipe, on the first 1,000
training images, with nothing to choose (`probes/fine_tune.py`). Both give ``vtab1k_acc1``; which it was is in the facts
and the options, and `tasks.vtab.vtab_means` refuses to mix them. Nothing here is DataComp's or CLIP_benchmark's "VTAB".

A set is a task by its name (``vtab1k-dtd``; ``vtab-dtd`` too where it has the splits; `tasks` for any other name). Its
splits are cut by position (`tasks/vtab.py`), so they must be whole: another size or another number of classes is an
error, because it means other images. `strict: false` lets made-up sets through: the slices then are shares of what is
there, the result says so (``exact: false``) and enters no mean. Only rows in a slice are embedded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from ...errors import ConfigError, DataError
from ...shards.evalsets.base import EvalSet, EvalSplit
from ..metrics.accuracy import BLOCK, top_k_accuracy
from ..metrics.outcomes import Outcomes, outcomes
from ..probes.logistic import choose_c, fit_logistic
from ..tasks.vtab import TASKS, Slice, VtabTask, is_sliced, parse_slices, rows_of, vtab_task
from .base import SUITES, EvalContext, Suite, SuiteResult


class Plan(NamedTuple):
    """The slices of one set, in the order in which they are learned from.

    Attributes:
        first1000: what fine-tuning learns from.
        written: the slices as TFDS writes them, by name.
        exact: whether all sizes are VTAB-1k's.
    """

    train800: list[Slice]
    val200: list[Slice]
    first1000: list[Slice]
    test: list[Slice]
    written: dict[str, str]
    exact: bool


@SUITES.register
class Vtab(Suite):
    """One of the 19 tasks; means over them come with the results."""

    task: ClassVar[str] = "vtab1k"
    main_metric: ClassVar[str] = "vtab1k_acc1"

    type: Literal["vtab"] = "vtab"
    protocol: Literal["linear", "finetune"] = Field(
        default="linear", description="A linear head on frozen features, or the whole network."
    )
    tasks: dict[str, str] = Field(
        default={}, description="Name of a set -> VTAB-1k task, for sets whose name does not say it."
    )
    strict: bool = Field(
        default=True, description="Whether splits and classes must be exactly those of VTAB-1k; false: for trials."
    )
    max_iter: int = Field(default=1000, ge=1, description="Most iterations of L-BFGS (`linear`).")
    steps: int = Field(default=1000, ge=1, description="Training steps (`finetune`); the recipe's is 1000.")
    batch_size: int = Field(default=64, ge=1, description="Pictures in a training batch (`finetune`).")
    seed: int = Field(default=0, ge=0, description="Of the order of training pictures (`finetune`).")

    @field_validator("tasks")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value.values():
            if vtab_task(name) is None:
                known = ", ".join(task.name for task in TASKS)
                raise ValueError(f"{name!r} is none of the tasks of VTAB-1k: {known}")
        return value

    def task_of(self, evalset: EvalSet) -> VtabTask | None:
        """The task that a set is; None if it is none."""
        return vtab_task(self.tasks.get(evalset.name, evalset.name))

    def measures(self, evalset: EvalSet) -> bool:
        task = self.task_of(evalset)
        if evalset.kind not in self.kinds or task is None:
            return False
        if self.sets is not None:
            return any(fnmatchcase(evalset.name, pattern) for pattern in self.sets)
        if evalset.name in self.tasks or evalset.name.lower().startswith(("vtab1k", "vtab-1k")):
            return True
        # `vtab-dtd` may be CLIP_benchmark's export for zero-shot, which has no training images
        return evalset.name.lower().startswith("vtab") and (
            is_sliced(evalset) or set(_splits(task)) <= set(evalset.split_names())
        )

    def splits_of(self, evalset: EvalSet) -> list[str]:
        task = self._task(evalset)
        return ["train800", "val200", "test"] if is_sliced(evalset) else _splits(task)

    def split_of(self, evalset: EvalSet) -> str:
        """The split that the scored slice is of."""
        task = self._task(evalset)
        return "test" if is_sliced(evalset) else task.splits(task.test)[0]

    def check_sets(self, evalsets: Sequence[EvalSet]) -> None:
        """Raise ConfigError also for two sets that are one task: its means could not say which counts."""
        super().check_sets(evalsets)
        names: dict[str, str] = {}
        for evalset in evalsets:
            task = self._task(evalset).name
            if task in names:
                raise ConfigError(
                    f"{names[task]!r} and {evalset.name!r} are both VTAB-1k's {task}; one set per task enters its "
                    f"means: name those to measure in `sets` of the suite {self.label!r}"
                )
            names[task] = evalset.name
        if lost := [name for name in self.tasks if name not in names.values()]:
            raise ConfigError(f"`tasks` of the suite {self.label!r} names {lost[0]!r}, and it measures no such set")

    def check_splits(self, evalset: EvalSet, splits: Mapping[str, EvalSplit]) -> None:
        super().check_splits(evalset, splits)
        self._check_classes(evalset)
        self.plan(evalset, {name: len(split) for name, split in splits.items()})

    def check_set(self, evalset: EvalSet, classes: tuple[str, ...]) -> None:
        self._check_classes(evalset)

    def rows(self, evalset: EvalSet, split: EvalSplit) -> np.ndarray | None:
        """Rows in the slices; none for fine-tuning, which looks at pictures and not at features."""
        if self.protocol == "finetune":
            return np.zeros(0, np.int64)
        sizes = {split.name: len(split)}
        plan = self.plan(evalset, {name: len(evalset.split(name)) for name in self._others(evalset, split)} | sizes)
        return rows_of([*plan.train800, *plan.val200, *plan.test], split.name)

    def _others(self, evalset: EvalSet, split: EvalSplit) -> list[str]:
        return [name for name in self.splits_of(evalset) if name != split.name] if not self.strict else []

    def plan(self, evalset: EvalSet, sizes: dict[str, int]) -> Plan:
        """The slices of a set whose splits have these sizes.

        Raises:
            DataError: they are not VTAB-1k's.
        """
        task = self._task(evalset)
        sliced = is_sliced(evalset)
        needed = {"train800": 800, "val200": 200, "test": _length(parse_slices(task.test, task.sizes))}
        needed = needed if sliced else dict(task.sizes)
        wrong = [f"{name} holds {n}, not {needed[name]}" for name, n in sizes.items() if n != needed[name]]
        if wrong and self.strict:
            raise DataError(
                f"{evalset.folder} is not VTAB-1k's {task.name}, whose slices count from the whole splits in the order "
                f"of TFDS: {'; '.join(wrong)}; export it again, or set `strict: false` for a trial that enters no mean"
            )
        if sliced:
            both = "train800+val200"
            if self.strict and self.protocol == "finetune":
                raise DataError(
                    f"{evalset.folder}: VTAB-1k fine-tunes on {task.first1000}, and this set holds {both} only; export "
                    "the whole splits, or set `strict: false` for a trial that enters no mean"
                )
            exact = not wrong and self.protocol == "linear"
            return _plan("train800", "val200", both, "test", needed | sizes, exact)
        if not wrong:
            return _plan(task.train800, task.val200, task.first1000, task.test, task.sizes, True)
        return _plan(*_shares(task), sizes, False)

    def evaluate(self, context: EvalContext) -> SuiteResult:
        evalset = context.evalset
        self._check_classes(evalset)
        plan = self.plan(evalset, {name: len(context.split(name)) for name in self.splits_of(evalset)})
        run = self._linear if self.protocol == "linear" else self._finetune
        found, facts = run(context, plan)
        facts = {
            "task": self._task(evalset).name,
            "group": self._task(evalset).group,
            "protocol": self.protocol,
            "exact": plan.exact and self._task(evalset).classes == len(evalset.classnames) and self._by_the_book,
            **facts,
        }
        return SuiteResult({"vtab1k_acc1": top_k_accuracy(found.rank, 1)}, found, facts)

    @property
    def _by_the_book(self) -> bool:
        """Whether the recipe of fine-tuning is the published one."""
        return self.protocol == "linear" or (self.steps, self.batch_size) == (1000, 64)

    def _linear(self, context: EvalContext, plan: Plan) -> tuple[Outcomes, dict[str, Any]]:
        classes = len(context.evalset.classnames)
        train, held = (_features(context, slices) for slices in (plan.train800, plan.val200))
        if len(np.unique(train[1])) < 2:
            raise DataError(f"{context.evalset.folder}: {plan.written['train800']} holds one class; a probe needs two")
        c, best, tried = choose_c(train, held, classes, self.max_iter)
        both = np.concatenate([train[0], held[0]]), np.concatenate([train[1], held[1]])
        head = fit_logistic(*both, classes, c, self.max_iter)
        rows = rows_of(plan.test, plan.test[0].split)
        image, labels = context.features(plan.test[0].split)
        blocks = (head(image[rows[start : start + BLOCK]]) for start in range(0, len(rows), BLOCK))
        facts = {
            "c": c,
            "c_tried": tried,
            "validation_acc1": best.right / len(held[1]),
            "converged": head.converged,
            "train_n": len(both[1]),
            "unseen_classes": np.flatnonzero(np.bincount(both[1], minlength=classes) == 0).tolist(),
            "slices": {name: plan.written[name] for name in ("train800", "val200", "test")},
        }
        return _of_rows(blocks, labels, rows, len(image)), facts

    def _finetune(self, context: EvalContext, plan: Plan) -> tuple[Outcomes, dict[str, Any]]:
        if context.model is None:
            raise ConfigError(f"the suite {self.label!r} trains the model further, and there is none, only features")
        from ..probes.fine_tune import FineTuning, fine_tune  # torch

        classes = len(context.evalset.classnames)
        images, labels = [], []
        for part in plan.first1000:
            split = context.split(part.split)
            images += [split.image(i) for i in range(part.start, part.stop)]
            labels.append(split.labels[part.start : part.stop])
        learned = np.concatenate(labels)
        recipe = FineTuning(steps=self.steps, batch_size=self.batch_size)
        tuned = fine_tune(context.model, images, learned, classes, recipe, self.seed)
        split = context.split(plan.test[0].split)
        rows = rows_of(plan.test, split.name)
        pictures: Iterator[bytes] = (split.image(i) for i in rows.tolist())
        facts = {
            "steps": self.steps,
            "seed": self.seed,
            "train_n": len(learned),
            "last_loss": float(np.mean(tuned.losses[-10:])),
            "unseen_classes": np.flatnonzero(np.bincount(learned, minlength=classes) == 0).tolist(),
            "slices": {name: plan.written[name] for name in ("first1000", "test")},
        }
        return _of_rows(tuned.scores(pictures, BLOCK), split.labels, rows, len(split)), facts

    def _task(self, evalset: EvalSet) -> VtabTask:
        task = self.task_of(evalset)
        if task is None:
            raise ConfigError(f"{evalset.folder} is none of VTAB-1k's tasks by its name; say which in `tasks`")
        return task

    def _check_classes(self, evalset: EvalSet) -> None:
        task = self._task(evalset)
        if self.strict and len(evalset.classnames) != task.classes:
            raise DataError(
                f"{evalset.folder} has {len(evalset.classnames)} classes, and VTAB-1k's {task.name} has "
                f"{task.classes}: it is another task (CLIP_benchmark's dSprites, say); set `strict: false` for a trial"
            )


def _splits(task: VtabTask) -> list[str]:
    return task.splits(task.train800, task.val200, task.test)


def _length(slices: list[Slice]) -> int:
    return sum(part.stop - part.start for part in slices)


def _plan(train800: str, val200: str, first1000: str, test: str, sizes: Any, exact: bool) -> Plan:
    texts = {"train800": train800, "val200": val200, "first1000": first1000, "test": test}
    train, held, first, scored = (parse_slices(text, sizes) for text in texts.values())
    return Plan(train, held, first, scored, texts, exact)


def _shares(task: VtabTask) -> tuple[str, str, str, str]:
    """Slices of splits of any size, in the places of the task's own, that do not overlap."""
    held, scored = task.splits(task.val200)[0], task.splits(task.test)[0]
    if scored != "train":
        val = "train[64%:80%]" if held == "train" else f"{held}[:20%]"
        return "train[:64%]", val, "train[:80%]", "test[50%:]" if held == scored else scored
    return "train[:64%]", "train[64%:80%]", "train[:80%]", "train[80%:]"


def _features(context: EvalContext, slices: list[Slice]) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of slices, in their order."""
    parts = [(context.features(part.split), part) for part in slices]
    image = np.concatenate([features.image[part.start : part.stop] for features, part in parts])
    return image, np.concatenate([features.labels[part.start : part.stop] for features, part in parts])


def _of_rows(blocks: Iterator[np.ndarray], labels: np.ndarray, rows: np.ndarray, size: int) -> Outcomes:
    """Outcomes of a slice, which know their rows unless they are the whole split."""
    found = outcomes(blocks, labels[rows])
    whole = len(rows) == size
    return Outcomes(found.labels, found.prediction, found.rank, found.classes, None if whole else rows)
