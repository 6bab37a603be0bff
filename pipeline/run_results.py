"""What one run measured, as its page and `curate compare` read it: folders of results, and the run's report as data.

A run's folder holds both under names for people (``evaluation/``, ``report/report.json``), so that runs of other
workdirs, machines and versions can be compared without their artifacts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CurateError
from ..eval.results.files import RESULTS
from ..shards import storage

SUBSETS, ENCODERS = "subsets", "encoders"
EVALUATION = "evaluation"  # folder of a run with both
REPORT = "report/report.json"
BANK = "examples.parquet"
FACTS = ("samples_seen", "distinct", "parameters", "flops", "seconds", "cost")


@dataclass(frozen=True)
class Measured:
    """Results of one model.

    Attributes:
        arm: subset, or ``encoder NAME``.
        seed: None of an encoder.
        folder: what `evaluate` wrote.
        facts: numbers and words about its training.
    """

    arm: str
    seed: int | None
    folder: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class RunResults:
    """Results of a run.

    Attributes:
        name: of the run.
        report: its ``report.json``.
        models: arms in the config's order, seeds ascending, encoders last.
        bank: path of its example pictures, or None.
        page: path of its report's page, or None.
    """

    name: str
    report: Mapping[str, Any]
    models: tuple[Measured, ...]
    bank: str | None = None
    page: str | None = None


def read_run(path: str) -> RunResults:
    """The results in a run's folder.

    Raises:
        CurateError: it is no folder of a run, or the run has measured nothing yet.
    """
    path = path.rstrip("/")
    if not storage.exists(storage.join(path, "config.yaml")):
        raise CurateError(f"{path} is no folder of a run (WORKDIR/NAME, with config.yaml in it)")
    report_path = storage.join(path, REPORT)
    if not storage.exists(report_path):
        raise CurateError(f"{path} has no report yet; run its config to the end, or `curate report` it")
    report = storage.read_json(report_path)
    found = [
        (kind, name, seed)
        for kind in (SUBSETS, ENCODERS)
        for name in storage.list_names(storage.join(path, EVALUATION, kind))
        for seed in storage.list_names(storage.join(path, EVALUATION, kind, name))
        if storage.exists(storage.join(path, EVALUATION, kind, name, seed, RESULTS))
    ]
    if not found:
        raise CurateError(f"{path} has no results: no model of it has been evaluated yet")
    order = {name: place for place, name in enumerate(_arms(report))}
    found.sort(key=lambda one: (one[0] != SUBSETS, order.get(one[1], len(order)), one[1], _seed(one[2]) or 0))
    models = tuple(
        measured(report, kind, name, seed, storage.join(path, EVALUATION, kind, name, seed))
        for kind, name, seed in found
    )
    bank = storage.join(path, "report", BANK)
    page = storage.join(path, "report", "index.html")
    return RunResults(
        report["header"]["run"],
        report,
        models,
        bank if storage.exists(bank) else None,
        page if storage.exists(page) else None,
    )


def measured(report: Mapping[str, Any], kind: str, name: str, seed: str, folder: str) -> Measured:
    """One model by its place in a run, with what the report tells of its training.

    Args:
        report: the run's ``report.json``.
        kind: `SUBSETS` or `ENCODERS`.
        seed: name of the model's folder, ``seed0`` or ``model``.
    """
    number = _seed(seed)
    if kind == ENCODERS:
        return Measured(f"encoder {name}", None, folder, {})
    trained = next((t for t in report.get("trainings") or () if (t["arm"], t["seed"]) == (name, number)), {})
    facts = {fact: trained[fact] for fact in FACTS if trained.get(fact) is not None}
    facts |= {fact: trained[fact] for fact in ("model", "recipe") if trained.get(fact)}
    return Measured(name, number, folder, facts)


def _seed(folder: str) -> int | None:
    number = folder.removeprefix("seed")
    return int(number) if number.isdigit() and number != folder else None


def _arms(report: Mapping[str, Any]) -> list[str]:
    """Subsets in the config's order: that of the funnels."""
    return [funnel["subset"] for funnel in report.get("funnels") or ()]
