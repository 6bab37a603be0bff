"""What an evaluation leaves in its folder; all of it is strict JSON, and the same inputs give the same bytes.

outcomes/<dataset>.<suite>.parquet  one row per sample: key, correct, and what else the metrics need
clip_benchmark/*.json               as CLIP_benchmark writes them (`clip_benchmark.py`; `build` reads them)
eval_results.jsonl                  one line per dataset, as DataComp's evaluation writes them (`datacomp.py`)
results.json                        all of it, with tables; written last, so a folder that has it is whole
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import pyarrow.parquet as pq

from ...errors import DataError
from ...shards import storage
from ...shards.evalsets.base import EvalSet
from ..comparison.statistics import wilson
from ..metrics.outcomes import Outcomes
from ..opened import OpenSet
from ..suites import Suite, SuiteResult
from ..tasks.aggregates import aggregates
from ..tasks.by_name import described, task_of
from ..tasks.prompts import text_hash
from .clip_benchmark import write_clip_benchmark
from .datacomp import DATACOMP_RESULTS, write_datacomp

if TYPE_CHECKING:
    from ...pretrain.encoders.encoder import Encoder

FORMAT = 2
RESULTS = "results.json"
_UNIFORM = ("acc1", "mean_per_class_recall")  # metrics in which a uniform guess reaches one over the classes


def read_results(folder: str) -> dict[str, Any]:
    """The ``results.json`` that `evaluate` wrote in a folder.

    Raises:
        DataError: there is none, or it is of another format.
    """
    path = storage.join(folder, RESULTS)
    if not storage.exists(path):
        raise DataError(f"{path} is missing; the evaluation is not finished")
    value = storage.read_json(path)
    if value.get("format") != FORMAT:
        raise DataError(f"{path} has format {value.get('format')}, not {FORMAT}; evaluate again")
    return value


def is_share_right(record: Mapping[str, Any], metric: str) -> bool:
    """Whether a metric of an entry is the share of right answers: what its ``correct`` and ``wilson95`` are about.

    Others may be called alike (``sup_real_acc1`` is over the samples that have a right class).
    """
    n = record.get("n") or 0
    return metric.endswith("acc1") and n > 0 and record["metrics"].get(metric) == record.get("correct", -1) / n


class Written(NamedTuple):
    """One entry of ``results``, and the suite that it is of."""

    record: dict[str, Any]
    tables: dict[str, Any]
    suite: Suite


@runtime_checkable
class Worded(Protocol):
    """A suite whose numbers depend on more words than class names and templates."""

    def text_hash_for(self, evalset: EvalSet) -> str:
        """Hash of all of them."""
        ...


def write_result(out: str, digest: str, model: str, one: OpenSet, suite: Suite, result: SuiteResult) -> Written:
    """Write what belongs to one set and suite: per-sample outcomes and CLIP_benchmark's files."""
    split = one.splits[suite.split_of(one.evalset)]
    path = f"outcomes/{one.name.replace('/', '-')}.{suite.label}.parquet"
    with storage.publishing(storage.join(out, path)) as temporary:
        pq.write_table(result.outcomes.table(split), temporary, compression="zstd")
    record = _record(one, suite, result, path)
    tables = {**result.outcomes.tables(one.evalset, split), **result.tables}
    write_clip_benchmark(out, digest, model, record, tables)
    return Written(record, tables, suite)


def finish(out: str, encoder: Encoder, sets: Sequence[OpenSet], written: Sequence[Written]) -> dict[str, Any]:
    """Write what belongs to all sets together; returns the results without the tables."""
    records = [w.record for w in written]
    write_datacomp(out, records)
    means = aggregates(records)
    value = {
        "format": FORMAT,
        "encoder": {"digest": encoder.digest, "dim": encoder.dim, "precision": encoder.precision},
        "sets": [_describe(one) for one in sets],
        "aggregates": means,
        "results": [{**w.record, **w.tables} for w in written],
    }
    storage.write_json(storage.join(out, RESULTS), value)
    return {"encoder": encoder.digest, "aggregates": means, "results": records}


def _record(one: OpenSet, suite: Suite, result: SuiteResult, path: str) -> dict[str, Any]:
    """One entry of ``results``: what was asked, what came out, and what it belongs to."""
    evalset, found = one.evalset, result.outcomes
    classnames = suite.classnames_for(evalset)
    correct = int(found.correct.sum())
    plain = isinstance(found, Outcomes)
    main = suite.main_metric_of(evalset)
    uniform = plain and main is not None and main.endswith(_UNIFORM) and classnames
    hashed = isinstance(suite, Worded)
    return {
        "dataset": one.name,
        "suite": suite.label,
        "type": suite.type,
        "kind": evalset.kind,
        "language": evalset.language,
        "task": suite.task,
        "options": suite.told(result.facts),
        "version": suite.version,
        "split": suite.split_of(evalset),
        "dataset_digest": evalset.digest,
        "text_hash": suite.text_hash_for(evalset) if hashed else text_hash(classnames, suite.templates_for(evalset)),
        "datacomp": _datacomp(one, suite, found, len(classnames)),
        "n": len(found),
        "classes": len(classnames),
        "templates": len(suite.templates_for(evalset)),
        "chance": result.chance if result.chance is not None else 1 / len(classnames) if uniform else None,
        "main_metric": main,
        "metrics": result.metrics,
        "correct": correct,
        "wilson95": list(result.interval or wilson(correct, len(found)) or ()) if plain else None,
        "facts": result.facts,
        "outcomes": path,
    }


def _datacomp(one: OpenSet, suite: Suite, found: Any, classes: int) -> dict[str, Any] | None:
    """Which of DataComp's tasks the set is, and whether it was measured whole; None if it is none of them."""
    task = task_of(one.evalset)
    if task is None:
        return None
    split = one.splits[suite.split_of(one.evalset)]
    if task.kind == "retrieval":  # its size counts pictures, the outcomes are queries both ways
        return described(task, len(split), classes)
    return described(task, len(split.associations or ()) if task.kind == "association" else len(found), classes)


def _describe(one: OpenSet) -> dict[str, Any]:
    """The set as it was: texts in full, so that a number can be traced to its prompts years later."""
    own = one.evalset.class_prompts
    return {
        "name": one.name,
        "kind": one.evalset.kind,
        "language": one.evalset.language,
        "digest": one.evalset.digest,
        "classnames": list(one.evalset.classnames),
        "templates": list(one.evalset.templates),
        **({"class_prompts": {name: list(mine) for name, mine in own.items()}} if own is not None else {}),
        "splits": {name: len(split) for name, split in one.splits.items()},
    }


__all__ = ["DATACOMP_RESULTS", "FORMAT", "RESULTS", "Worded", "Written", "finish", "write_result"]
