"""`evalset` and `eval`: built-in evaluation sets, and every trained model on every set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import ConfigError
from ...registry import unknown
from ...shards import storage
from ..stage import Stage, Task, Work


def _digits(folder: str) -> None:
    from ...shards.demo.digits import write_digits_evalset

    write_digits_evalset(folder)


BUILTIN: dict[str, Callable[[str], None]] = {"digits": _digits}
"""Evaluation sets that need nothing but the install."""


@dataclass(eq=False)
class EvalSetStage(Stage):
    """Write a built-in evaluation set in CLIP_benchmark's layout. Files: ``wds_<name>/``."""

    kind: ClassVar[str] = "evalset"
    builtin: str = ""

    def __post_init__(self) -> None:
        if self.builtin not in BUILTIN:
            raise ConfigError(f"eval.data: {unknown('evaluation set', self.builtin, BUILTIN)}, or give a folder")

    def identity(self) -> dict[str, Any]:
        return {"builtin": self.builtin}

    def expected_parts(self, done: Any) -> int | None:
        return 1

    def run(self, work: Work) -> dict[str, Any]:
        work.map(_write_builtin, {self.builtin: (self.builtin,)})
        return {"folder": f"wds_{self.builtin}"}


def _write_builtin(task: Task, builtin: str) -> dict[str, Any]:
    BUILTIN[builtin](storage.join(task.out, f"wds_{builtin}"))
    return {}


@dataclass(eq=False)
class EvalStage(Stage):
    """All suites on all evaluation sets, for each seed's model of one subset, or for one encoder.

    Inputs: ``pretrain`` (a subset's models) or ``encoder`` (a training), unless the model is a loaded one; and
    ``evalset/*`` for the built-in sets.
    Files: ``seed0/results.json`` and the per-sample outcomes beside it; of an encoder ``model/results.json``.
    Summary: ``seeds``: the results of each.
    """

    kind: ClassVar[str] = "eval"
    suites: tuple[Any, ...] = ()
    folders: tuple[str, ...] = ()
    folder_identities: tuple[str, ...] = ()
    model: tuple[str, str | None] | None = None  # name and local checkpoint of an encoder that is loaded
    weights: str = ""  # its identity

    def identity(self) -> dict[str, Any]:
        return {
            "suites": [{**s.model_dump(mode="json"), "version": s.version} for s in self.suites],
            "folders": list(self.folder_identities),
        } | ({"model": self.model[0], "weights": self.weights} if self.model else {})

    def expected_parts(self, done: Any) -> int | None:
        if "pretrain" in self.inputs:
            return len(done["pretrain"].summary["seeds"]) if "pretrain" in done else None
        return 1

    def run(self, work: Work) -> dict[str, Any]:
        built = [storage.join(a.data, a.summary["folder"]) for r, a in work.inputs.items() if r.startswith("evalset/")]
        if "pretrain" in work.inputs:
            trained = work.inputs["pretrain"]
            models = {seed: (storage.join(trained.data, seed), None) for seed in trained.summary["seeds"]}
        elif "encoder" in work.inputs:
            models = {"model": (storage.join(work.inputs["encoder"].data, "model"), None)}
        else:
            assert self.model is not None
            models = {"model": self.model}
        parts = {name: (*model, [*built, *self.folders], self.suites) for name, model in models.items()}
        return {"seeds": work.map(_evaluate, parts)}


def _evaluate(
    task: Task, model: str, pretrained: str | None, folders: list[str], suites: tuple[Any, ...]
) -> dict[str, Any]:
    from ...eval.evaluate import evaluate

    return evaluate(
        model,
        folders,
        list(suites),
        storage.join(task.out, task.part),
        task.scratch,
        pretrained=pretrained,
        progress=task.progress,
    )
