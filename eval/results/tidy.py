"""One tidy table of all results across runs: a row per metric, a column per thing that a number belongs to.

What spreadsheets, data frames and DuckDB want, and what outlives the page: every value stands beside the digests of
model, set and words, the options and the protocol's version, so two numbers can be told apart or put side by side
without opening another file. Columns are typed and always there (null where they do not apply), rows are sorted
and the file is a function of its rows, so the same results give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError
from ...shards import storage
from ..comparison.run_measures import Evaluated
from .files import is_share_right, read_results

SCHEMA = pa.schema(
    [
        ("run", pa.string()),  # name of the run
        ("subset", pa.string()),  # the arm: subset, sweep point or encoder
        ("seed", pa.int64()),
        ("model", pa.string()),  # digest of the weights
        ("dataset", pa.string()),
        ("kind", pa.string()),
        ("language", pa.string()),
        ("suite", pa.string()),  # what the config calls it
        ("type", pa.string()),  # the protocol
        ("task", pa.string()),  # CLIP_benchmark's name of it
        ("split", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("is_main", pa.bool_()),
        ("n", pa.int64()),  # samples or queries behind the value
        ("classes", pa.int64()),
        ("chance", pa.float64()),  # of the main metric, on its row only
        ("low", pa.float64()),  # Wilson's 95 % interval over test samples, of top-1 accuracies only
        ("high", pa.float64()),
        ("datacomp_task", pa.string()),
        ("datacomp_whole", pa.bool_()),  # whether all samples of the published task were scored
        ("text_hash", pa.string()),
        ("dataset_digest", pa.string()),
        ("version", pa.int64()),  # of the protocol
        ("options", pa.string()),  # JSON, sorted keys
        ("samples_seen", pa.int64()),
        ("unique_images", pa.int64()),  # different samples it was trained on
        ("recipe", pa.string()),
        ("architecture", pa.string()),
        ("parameters", pa.int64()),
    ]
)
"""Columns and types; new ones are added at the end."""
FACTS = ("samples_seen", "unique_images", "recipe", "architecture", "parameters")
_KEY = [(name, "ascending") for name in ("run", "subset", "seed", "model", "dataset", "suite", "metric", "language")]


def tidy_rows(results: Mapping[str, Any], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each metric of each entry of ``results.json``, and one for each of its aggregates.

    Args:
        about: values of the columns that the results do not know: ``run``, ``subset``, ``seed`` and `FACTS`.
    """
    base = {**about, "model": results["encoder"]["digest"]}
    rows = []
    for record in results["results"]:
        rows.extend(_rows(base, record, record["metrics"], {}))
        for one in record.get("languages") or ():
            mine = {key: one[key] for key in ("language", "n", "classes", "chance", "text_hash")}
            rows.extend(_rows(base, {**record, "main_metric": None, "wilson95": None}, one["metrics"], mine))
    for mean in results.get("aggregates", ()):
        words = {"kind": "aggregate", "suite": mean["family"], "type": "aggregate", "task": "aggregate"}
        rows.append(
            base
            | words
            | {"dataset": mean["name"], "metric": "mean", "value": mean["value"], "is_main": True}
            | {"n": len(mean["members"]), "datacomp_whole": _whole(mean)}
        )
    return rows


def _whole(mean: Mapping[str, Any]) -> bool | None:
    return mean["complete"] and not mean["not_whole"] if "not_whole" in mean else None


def _rows(
    base: Mapping[str, Any], record: Mapping[str, Any], metrics: Mapping[str, Any], changes: Mapping[str, Any]
) -> list[dict[str, Any]]:
    datacomp, bounds = record.get("datacomp") or {}, record.get("wilson95")
    shared = {
        **base,
        **{k: record.get(k) for k in ("dataset", "kind", "language", "suite", "type", "task", "split")},
        **{k: record.get(k) for k in ("n", "classes", "text_hash", "dataset_digest", "version")},
        "options": json.dumps(record.get("options"), sort_keys=True, ensure_ascii=False),
        "datacomp_task": datacomp.get("key"),
        "datacomp_whole": datacomp.get("whole"),
        **{k: v for k, v in changes.items() if k != "chance"},
    }
    rows = []
    for metric, value in metrics.items():
        main = metric == record["main_metric"]
        chance = changes["chance"] if changes and metric == "acc1" else record.get("chance") if main else None
        low, high = bounds if bounds and is_share_right(record, metric) else (None, None)
        rows.append(
            shared | {"metric": metric, "value": value, "is_main": main, "chance": chance, "low": low, "high": high}
        )
    return rows


def tidy_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of `SCHEMA`, sorted by whose they are and what they measure.

    Raises:
        DataError: a row has a column that the schema does not have, or a value of another type.
    """
    rows = list(rows)
    known = set(SCHEMA.names)
    if strange := sorted({name for row in rows for name in row} - known):
        raise DataError(f"a row of results has the column {strange[0]!r}, which the table does not have")
    try:
        table = pa.Table.from_pylist([dict(row) for row in rows], SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"a value of the results has the wrong type: {error}") from error
    return table.sort_by(_KEY)


def gather_tidy(models: Sequence[Evaluated]) -> pa.Table:
    """The table of many models' results.

    Raises:
        DataError: a folder has no finished results.
    """
    rows: list[dict[str, Any]] = []
    for one in models:
        facts = {key: value for key, value in (one.facts or {}).items() if key in FACTS}
        rows += tidy_rows(read_results(one.folder), {"run": one.run, "subset": one.subset, "seed": one.seed, **facts})
    return tidy_table(rows)


def write_tidy(path: str, table: pa.Table) -> None:
    """Write the table as parquet; equal tables give equal bytes."""
    with storage.publishing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd", store_schema=False)


def read_tidy(path: str) -> pa.Table:
    """The table that `write_tidy` wrote; columns that a newer version added are left out, missing ones are null."""
    table = pq.read_table(storage.local(path))
    return pa.table(
        {
            field.name: table[field.name].cast(field.type)
            if field.name in table.column_names
            else pa.nulls(len(table), field.type)
            for field in SCHEMA
        },
        SCHEMA,
    )
