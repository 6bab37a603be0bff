"""Results as they lie on disk: one row per set, suite and model, read and checked before anything is compared.

An *arm* is one way of curating, trained with several seeds; each (arm, seed) has one folder that `evaluate` wrote. Arms
may be compared only if they were measured alike: the same set, class names, templates and options; anything else is
refused here, not averaged over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError
from ...registry import unknown
from ...shards import storage
from ..results.files import RESULTS, read_results
from .contributions import AGREES, Contributions, contributions


@dataclass(frozen=True)
class Row:
    """One suite on one set for one seed of one arm.

    Attributes:
        arm, seed: whose model.
        folder: where its files are.
        record: its entry of ``results.json``.
    """

    arm: str
    seed: int
    folder: str
    record: dict[str, Any]

    @property
    def dataset(self) -> str:
        """Name of the set."""
        return self.record["dataset"]

    @property
    def suite(self) -> str:
        """Name of the suite."""
        return self.record["suite"]

    @property
    def measured(self) -> tuple[Any, ...]:
        """What must be equal for numbers to be comparable; which other sets a suite is for does not matter."""
        options = {k: v for k, v in self.record["options"].items() if k not in ("name", "sets")}
        return (options, *(self.record[k] for k in ("dataset_digest", "text_hash", "version", "split", "n")))

    def metric(self, name: str) -> float | None:
        """The value of a metric; None where it does not exist for this set.

        Raises:
            DataError: the suite has no such metric.
        """
        if name not in self.record["metrics"]:
            raise DataError(f"{self.suite} on {self.dataset}: {unknown('metric', name, self.record['metrics'])}")
        return self.record["metrics"][name]

    def table(self) -> pa.Table:
        """Its stored rows (`SampleOutcomes.table`)."""
        return pq.read_table(storage.local(storage.join(self.folder, self.record["outcomes"])))

    def contributions(self, metric: str) -> Contributions | None:
        """What each stored row adds to a metric; None for metrics that are not means of rows.

        Raises:
            DataError: the rows give another number than the record; one of the two files is not of this evaluation.
        """
        return contributions_of(self, self.table(), metric)

    def outcomes(self) -> tuple[list[str], np.ndarray]:
        """Sample keys, and ``(n,) bool``: which were right."""
        table = pq.read_table(
            storage.local(storage.join(self.folder, self.record["outcomes"])), columns=["key", "correct"]
        )
        return table["key"].to_pylist(), table["correct"].to_numpy()


def contributions_of(row: Row, table: pa.Table, metric: str) -> Contributions | None:
    """As `Row.contributions`, of rows that were read before."""
    value = row.metric(metric)
    found = contributions(table, metric, value)
    if found is None or value is None:
        return None
    if abs(found.estimate - value) > AGREES:
        raise DataError(
            f"{storage.join(row.folder, row.record['outcomes'])} gives {metric} = {found.estimate:.6f}, but "
            f"{RESULTS} beside it says {value:.6f}; evaluate again"
        )
    return found


def read_records(folder: str, whose: str) -> list[dict[str, Any]]:
    """The entries of a folder's ``results.json``.

    Raises:
        DataError: it is missing or of another format.
    """
    try:
        return read_results(folder)["results"]
    except DataError as error:
        raise DataError(f"{whose}: {error}") from error


def gather(folders: Mapping[tuple[str, int], str]) -> list[Row]:
    """Read the results of every (arm, seed) -> folder, in that order.

    Raises:
        DataError: a folder has no finished results, or two arms were measured differently.
    """
    rows = []
    for (arm, seed), folder in folders.items():
        rows.extend(Row(arm, seed, folder, record) for record in read_records(folder, f"{arm}, seed {seed}"))
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        other = first.setdefault((row.dataset, row.suite), row)
        if row.measured != other.measured:
            raise DataError(
                f"{row.suite} on {row.dataset}: {row.arm}, seed {row.seed}, and {other.arm}, seed {other.seed}, were "
                "measured differently (set, class names, templates or options); evaluate them alike"
            )
    return rows


def tidy(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One record per metric: ``arm, seed, dataset, suite, metric, value, n``; strict JSON, ready for a data frame."""
    found = []
    for row in rows:
        about = {"arm": row.arm, "seed": row.seed, "dataset": row.dataset, "suite": row.suite}
        found.extend(about | {"metric": m, "value": v, "n": row.record["n"]} for m, v in row.record["metrics"].items())
    return found


def has_recalls(row: Row) -> bool:
    """Whether it has a table of right answers per class (classifications of one label have)."""
    table = row.record.get("per_class")
    return bool(table) and "correct" in table[0]


def class_column(row: Row, name: str) -> np.ndarray:
    """One column ``(classes,)`` of the per-class table."""
    return np.array([entry[name] for entry in row.record["per_class"]], np.float64)


def class_recall(rows: Sequence[Row], dataset: str, suite: str) -> dict[str, list[float | None]]:
    """Recall of every class, mean over seeds, per arm; None for classes without samples. For per-class tables.

    Empty for suites without such a table (retrieval).
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        if (row.dataset, row.suite) == (dataset, suite) and has_recalls(row):
            found.setdefault(row.arm, []).append(row)
    table: dict[str, list[float | None]] = {}
    for arm, seeds in found.items():
        size = class_column(seeds[0], "n")
        right = np.mean([class_column(row, "correct") for row in seeds], axis=0)
        table[arm] = [float(r / n) if n else None for r, n in zip(right, size, strict=True)]
    return table
