"""What was measured, over all models: protocols and their metrics, told apart wherever anything differs.

Two records are of one protocol only if set, words, options, version, split and size agree (`Row.measured`). Where they
do not, both are shown, as two protocols with a sentence about what differs; nothing is averaged over them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from ...errors import DataError
from ..results.files import read_results as read_folder
from ..tasks.by_name import datacomp_task
from ..tasks.capabilities import members
from .contributions import check_same
from .labels import measure_label
from .rows import Row

METRICS = 24
"""Most metrics of one protocol that are shown; the main one and then the first. All are in the runs' own files."""
_OF_GROUPS = re.compile(r".+_.+:\d+")
_WORDS = {
    "dataset_digest": "test set",
    "text_hash": "templates or class names",
    "options": "options",
    "version": "version of the protocol",
    "split": "split",
    "n": "number of samples",
}
_LOWER = re.compile(r"(.*_)?(toxicity.*|mean_rank|median_rank|loss)")


@dataclass(frozen=True)
class Evaluated:
    """One model's finished evaluation, and where it comes from.

    Attributes:
        run, subset: name of the run and of the way of curating; together they are the arm.
        seed: of the training; None for a model that was loaded.
        folder: that `evaluate` wrote (it holds ``results.json``).
        facts: what a reader may want to put beside the numbers: ``samples_seen``, ``unique_images``, ``parameters``,
            ``cost``, ``recipe``... numbers and texts.
    """

    run: str
    subset: str
    seed: int | None
    folder: str
    facts: Mapping[str, float | int | str | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What messages and the page call it."""
        return f"{self.run}/{self.subset}" + ("" if self.seed is None else f" seed {self.seed}")


@dataclass(frozen=True)
class Results:
    """Everything in a model's ``results.json``."""

    model: Evaluated
    value: dict[str, Any]


def read_results(model: Evaluated) -> Results:
    """Read one model's results.

    Raises:
        DataError: they are missing or of another format.
    """
    try:
        return Results(model, read_folder(model.folder))
    except DataError as error:
        raise DataError(f"{model.name}: {error}") from error


@dataclass
class Protocol:
    """One suite on one set, measured alike.

    Attributes:
        place: its number in the output.
        variant: 1, or 2 and more for further ways in which the same set and suite were measured.
        rows: model number -> its result.
    """

    place: int
    variant: int
    rows: dict[int, Row]

    @property
    def first(self) -> Row:
        """Any of its rows, for what they share."""
        return next(iter(self.rows.values()))

    @property
    def record(self) -> dict[str, Any]:
        """As `first`."""
        return self.first.record

    @cached_property
    def metrics(self) -> list[str]:
        """Metrics that some model has a number of, the main one first; those of single groups are left to tables."""
        names = dict.fromkeys(
            m for row in self.rows.values() for m, v in row.record["metrics"].items() if v is not None
        )
        main = self.record["main_metric"]
        shown = [m for m in names if m == main] + [m for m in names if m != main and not _OF_GROUPS.fullmatch(m)]
        return shown[:METRICS]

    def measure(self, metric: str) -> str:
        """Id of a measure."""
        end = f"#{self.variant}" if self.variant > 1 else ""
        return f"{self.first.dataset}|{self.first.suite}|{metric}{end}"

    @property
    def main(self) -> str | None:
        """Id of the main measure; None without one."""
        metric = self.record["main_metric"]
        return self.measure(metric) if metric in self.metrics else None

    def tables(self) -> dict[int, pa.Table]:
        """Stored rows of every model, all on the same samples.

        Raises:
            DataError: two models' rows are of different samples.
        """
        found: dict[int, pa.Table] = {}
        keys: pa.Array | None = None
        for place, row in self.rows.items():
            table = row.table()
            mine = table["key"].combine_chunks()
            if keys is None:
                keys = mine
            check_same(keys, mine, (f"the outcomes in {self.first.folder}", f"those in {row.folder}"))
            # one copy of the keys for all
            found[place] = table.set_column(table.column_names.index("key"), "key", keys)
        return found


def protocols(results: Sequence[Results], arms: Sequence[str]) -> list[Protocol]:
    """All protocols, in the order of the records; `arms` names each model's arm."""
    by_key: dict[tuple[str, str], list[Protocol]] = {}
    for place, one in enumerate(results):
        for record in one.value["results"]:
            row = Row(arms[place], one.model.seed or 0, one.model.folder, record)
            variants = by_key.setdefault((row.dataset, row.suite), [])
            same = next((p for p in variants if p.first.measured == row.measured), None)
            if same is None:
                same = Protocol(0, len(variants) + 1, {})
                variants.append(same)
            same.rows[place] = row
    found = [p for variants in by_key.values() for p in variants]
    for place, protocol in enumerate(found):
        protocol.place = place
    return found


def differs(found: Sequence[Protocol], names: Sequence[str]) -> list[dict[str, Any]]:
    """Sets and suites that were measured in more than one way, and in what those differ."""
    by_key: dict[tuple[str, str], list[Protocol]] = {}
    for protocol in found:
        by_key.setdefault((protocol.first.dataset, protocol.first.suite), []).append(protocol)
    told = []
    for (dataset, suite), variants in by_key.items():
        if len(variants) < 2:
            continue
        what = [
            words
            for key, words in _WORDS.items()
            if any(v.record[key] != variants[0].record[key] for v in variants[1:])
        ]
        some = [names[next(iter(v.rows))] for v in variants]
        told.append(
            {
                "dataset": dataset,
                "suite": suite,
                "protocols": [v.place for v in variants],
                "what": what,
                "sentence": f"{suite} on {dataset} was measured differently ({', '.join(what)}), for instance of "
                f"{some[0]} and of {some[1]}; these are separate columns and are never averaged or compared.",
            }
        )
    return told


def describe_protocol(protocol: Protocol, results: Sequence[Results]) -> dict[str, Any]:
    """One entry of ``protocols``."""
    record = protocol.record
    kept = (
        "dataset", "suite", "type", "task", "kind", "language", "split", "version", "options", "dataset_digest",
        "text_hash", "n", "classes", "chance", "main_metric",
    )  # fmt: skip
    return {key: record.get(key) for key in kept} | {
        "templates": _templates(protocol, results),
        "facts": {k: v for k, v in record.get("facts", {}).items() if isinstance(v, (int, float, str, bool))},
        "tags": tags(record),
        "metrics": len(record["metrics"]),
    }


def _templates(protocol: Protocol, results: Sequence[Results], shown: int = 3) -> list[str]:
    """The set's first templates, for suites that use prompts."""
    if "template" not in str(protocol.record["options"]) and protocol.record["type"] != "zero_shot":
        return []
    sets = results[next(iter(protocol.rows))].value.get("sets", [])
    found = next((s for s in sets if s["name"] == protocol.first.dataset), {})
    return list(found.get("templates", []))[:shown]


def tags(record: Mapping[str, Any]) -> list[str]:
    """Under what a measure can be chosen: kind, suite, capability, DataComp's groups, language."""
    found = [record.get("kind") or "classification", record["suite"]]
    found += members([record["dataset"]])
    task = datacomp_task(record["dataset"], record.get("kind", "classification"))
    if task is not None:
        found += ["DataComp"] + ([f"DataComp {task.group}"] if task.group else [])
    if record.get("language", "en") != "en":
        found.append(f"language {record['language']}")
    return list(dict.fromkeys(found))


def describe_measure(protocol: Protocol, metric: str, interval: str | None) -> dict[str, Any]:
    """One entry of ``measures``."""
    record = protocol.record
    main = metric == record["main_metric"]
    values = [row.record["metrics"].get(metric) for row in protocol.rows.values()]
    return {
        "id": protocol.measure(metric),
        "protocol": protocol.place,
        "dataset": record["dataset"],
        "suite": record["suite"],
        "metric": metric,
        "label": measure_label(record["dataset"], record["suite"], metric, protocol.variant),
        "main": main,
        "higher_is_better": higher_is_better(metric),
        "unit": "fraction" if all(v is None or 0 <= v <= 1 for v in values) else "number",
        "n": record["n"],
        "chance": record["chance"] if main else None,
        "interval": interval,
    }


def higher_is_better(metric: str) -> bool:
    """Whether more of it is good."""
    return not _LOWER.fullmatch(metric)
