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
from ...eval.report.dashboard.data import Curve, Groups, GroupScore, Step
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
    owned = [("", bank) for bank in banks] if banks is not None else list(_banks(runs))
    told = [read_results(one.folder) for _, one in models]
    shown = list(_shown(comparison, models, told, names, owned))
    languages = list(_languages(comparison, told))
    beside = Beside(
        arms={
            name: behind
            for run, page in zip(runs, pages or [""] * len(runs), strict=True)
            for name, behind in _backgrounds(run, page, names)
        },
        curves=[curve for run in runs for curve in _curves(run, names)],
        mistakes=[mistake for one in shown for mistake in mistakes_of(one)],
        retrieved=[query for one in shown for query in galleries_of(one)],
        groups=[table for table, _ in languages],
        altered=_altered(told),
        samples={measure: n for _, sizes in languages for measure, n in sizes.items()},
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


def _banks(runs: Sequence[RunResults]) -> Iterator[tuple[str, pa.Table]]:
    """Examples of each run, by its name."""
    for run in runs:
        if run.bank:
            yield run.name, pq.read_table(storage.local(run.bank)).cast(SCHEMA)


def _languages(
    comparison: dict[str, Any], told: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Groups, dict[str, int]]]:
    """A table of languages for each multilingual measure, and the test samples of each language's own measure."""
    arms = [arm["name"] for arm in comparison["arms"]]
    known = {measure["id"]: measure for measure in comparison["measures"]}
    for place, protocol in enumerate(comparison["protocols"]):
        if protocol["type"] != "multilingual":
            continue
        mine = {m["metric"]: m["id"] for m in known.values() if m["protocol"] == place}
        metric = str(protocol["main_metric"]).partition(":")[0]
        entries = next((found for one in told if (found := _told_languages(one, protocol))), ())
        entries = [entry for entry in entries if f"{metric}:{entry['language']}" in mine]
        if not entries or protocol["main_metric"] not in mine:
            continue
        ids = [mine[f"{metric}:{entry['language']}"] for entry in entries]
        values = [comparison["arm_values"][name] for name in ids]
        rows = {
            arm: [GroupScore(*v[a][:3]) if v[a] else GroupScore(None) for v in values]
            for a, arm in enumerate(arms)
            if any(v[a] for v in values)
        }
        sizes = [entry["n"] for entry in entries]
        table = Groups(
            mine[protocol["main_metric"]],
            "language",
            [entry["language"] for entry in entries],
            sizes,
            rows,
            [entry["chance"] for entry in entries],
        )
        yield table, dict(zip(ids, sizes, strict=True))


def _told_languages(results: Mapping[str, Any], protocol: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each language's entry in a model's results of a protocol; [] if it was not measured by it."""
    alike = ("dataset", "suite", "dataset_digest", "text_hash", "version")
    for record in results["results"]:
        if all(record[key] == protocol[key] for key in alike):
            return record.get("languages") or []
    return []


def _altered(told: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Named means -> those of their members that some model was measured on at another size than the published one."""
    found: dict[str, dict[str, None]] = {}
    for results in told:
        for mean in results["aggregates"]:
            found.setdefault(mean["name"], {}).update(dict.fromkeys(mean.get("not_whole", ())))
    return {name: list(members) for name, members in found.items() if members}


def _shown(
    comparison: dict[str, Any],
    models: Sequence[tuple[RunResults, Measured]],
    told: Sequence[Mapping[str, Any]],
    names: dict[tuple[str, str], str],
    banks: Sequence[tuple[str, pa.Table]],
) -> Iterator[Shown]:
    """The sets with examples: once each, of the protocol that the first arm was measured by.

    Args:
        told: ``results.json`` of each model.
        banks: examples by the name of their run, "" = of all; those of a run that measured another set of the same
            name are not shown, for their numbers mean other pictures.
    """
    folders = [
        (names[run.name, one.arm], one.folder, results) for (run, one), results in zip(models, told, strict=True)
    ]
    first = {}
    for results in told:
        for described in results["sets"]:
            first.setdefault(described["name"], described["classnames"])
    run_of = {name: run for (run, _), name in names.items()}
    for dataset in dict.fromkeys(name for _, bank in banks for name in bank["dataset"].unique().to_pylist()):
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
        owners = {"", *(run_of[one.arm] for one in alike)}
        mine = [bank.filter(pc.field("dataset") == dataset) for owner, bank in banks if owner in owners]
        if measure:
            yield Shown(measure, first[dataset], alike, _distinct(pa.concat_tables([SCHEMA.empty_table(), *mine])))


def _distinct(bank: pa.Table) -> pa.Table:
    """Runs that share a set have some examples in common."""
    rows = {(row["role"], row["key"]): row for row in reversed(bank.to_pylist())}
    return pa.Table.from_pylist(list(reversed(rows.values())), SCHEMA)
