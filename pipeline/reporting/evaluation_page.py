"""The page with all results of one or several runs, and the table behind it.

Files: ``index.html``, ``dashboard.json`` (what the page shows), ``comparison.json`` (all numbers, with tests and ranks)
and ``results.parquet`` (one row per model, set, suite and metric).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...eval.comparison.run_measures import Evaluated
from ...eval.comparison.runs import compare_models
from ...eval.examples import SCHEMA, seen_on
from ...eval.report.dashboard.build import build_dashboard
from ...eval.report.dashboard.data import Curve, Step
from ...eval.report.dashboard.from_bank import Shown, galleries_of, mistakes_of
from ...eval.report.dashboard.from_comparison import Background, Beside, dashboard_of
from ...eval.results.files import read_results
from ...eval.results.tidy import gather_tidy, write_tidy
from ...shards import storage
from ..run_results import Measured, RunResults

COMPARISON, RESULTS_TABLE = "comparison.json", "results.parquet"
TOLD = {"distinct": "unique_images", "model": "architecture"}
"""Facts of trainings by the names that a comparison has for them."""


def write_evaluation(
    runs: Sequence[RunResults],
    out: str,
    title: str,
    control: str = "",
    encoders: bool = True,
    pages: Sequence[str] = (),
    banks: Sequence[pa.Table] | None = None,
    shifts: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Write the page of some runs into the folder `out`; returns the comparison.

    Args:
        control: arm that the others are compared with (``subset``, or ``run/subset`` of several runs); default: the
            first.
        encoders: whether filter networks and loaded models are arms, too.
        pages: relative path of each run's own report, "" for none.
        banks: example pictures; default: those of the runs' reports.
        shifts: set -> its shifted versions, for effective robustness; default: DataComp's.

    Raises:
        DataError: there is no such arm, or results are missing.
    """
    models = [(run, one) for run in runs for one in run.models if encoders or one.seed is not None or not _trained(run)]
    evaluated = [Evaluated(run.name, one.arm, one.seed, one.folder, _facts(one)) for run, one in models]
    comparison = compare_models(evaluated, control or None, shifts=shifts).to_json()
    storage.write_json(storage.join(out, COMPARISON), comparison, indent=None)
    write_tidy(storage.join(out, RESULTS_TABLE), gather_tidy(evaluated))

    names = {(m["run"], m["subset"]): comparison["arms"][m["arm"]]["name"] for m in comparison["models"]}
    bank = pa.concat_tables([SCHEMA.empty_table(), *(banks if banks is not None else _banks(runs))])
    shown = list(_shown(comparison, models, names, bank))
    beside = Beside(
        arms={
            name: behind
            for run, page in zip(runs, pages or [""] * len(runs), strict=True)
            for name, behind in _backgrounds(run, page, names)
        },
        curves=[curve for run in runs for curve in _curves(run, names)],
        mistakes=[mistake for one in shown for mistake in mistakes_of(one)],
        retrieved=[query for one in shown for query in galleries_of(one)],
    )
    build_dashboard(dashboard_of(comparison, title, beside=beside), out)
    return comparison


def _trained(run: RunResults) -> bool:
    return any(one.seed is not None for one in run.models)


def _facts(one: Measured) -> dict[str, Any]:
    return {TOLD.get(name, name): value for name, value in one.facts.items()}


def _backgrounds(run: RunResults, page: str, names: dict[tuple[str, str], str]) -> Iterator[tuple[str, Background]]:
    """Arm and curation funnel of each of the run's arms."""
    funnels = {funnel["subset"]: funnel for funnel in run.report.get("funnels") or ()}
    for (owner, subset), name in names.items():
        if owner != run.name:
            continue
        if funnel := funnels.get(subset):
            steps = [Step(step["label"], step["entered"], step["kept"]) for step in funnel["steps"]]
            yield name, Background(funnel["pool"], steps, page)
        else:
            yield name, Background(report=page)


def _curves(run: RunResults, names: dict[tuple[str, str], str]) -> Iterator[Curve]:
    """Training losses, and what models were measured as on their way."""
    for curve in run.report.get("curves") or ():
        name = names.get((run.name, curve["arm"]))
        if name is None:
            continue
        seed = f"seed {curve['seed']}"
        yield Curve("Learning", name, "training loss", curve["samples"], curve["loss"], seed=seed, unit="")
        for what, line in curve["others"].items():
            if what == "validation_loss":
                yield Curve("Learning", name, "validation loss", line["samples"], line["values"], seed=seed, unit="")
            elif what.startswith("validation/"):
                label = what.removeprefix("validation/").replace("_", " ")
                yield Curve("Learning", name, f"validation {label}", line["samples"], line["values"], seed=seed)


def _banks(runs: Sequence[RunResults]) -> list[pa.Table]:
    return [pq.read_table(storage.local(run.bank)).cast(SCHEMA) for run in runs if run.bank]


def _shown(
    comparison: dict[str, Any],
    models: Sequence[tuple[RunResults, Measured]],
    names: dict[tuple[str, str], str],
    bank: pa.Table,
) -> Iterator[Shown]:
    """The sets with examples: once each, of the protocol that the first arm was measured by."""
    folders = [(names[run.name, one.arm], one.folder) for run, one in models]
    first = {}
    for _, folder in folders:
        for described in read_results(folder)["sets"]:
            first.setdefault(described["name"], described["classnames"])
    for dataset in dict.fromkeys(bank["dataset"].to_pylist()):
        mine = bank.filter(pc.field("dataset") == dataset)
        seen = seen_on(folders, dataset)
        alike = [one for one in seen if one.record["dataset_digest"] == seen[0].record["dataset_digest"]]
        measure = next(
            (
                m["id"]
                for m in comparison["measures"]
                if m["main"] and alike and (m["dataset"], m["suite"]) == (dataset, alike[0].record["suite"])
            ),
            None,
        )
        if measure:
            yield Shown(measure, first[dataset], alike, _distinct(mine))


def _distinct(bank: pa.Table) -> pa.Table:
    """Runs that share a set have some examples in common."""
    rows = {(row["role"], row["key"]): row for row in reversed(bank.to_pylist())}
    return pa.Table.from_pylist(list(reversed(rows.values())), SCHEMA)
