"""Small copies of test pictures that the run's models got wrong or were asked for, kept with the report."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from ...eval.examples import PICTURES, collect, seen_on
from ...eval.results.files import read_results
from ...shards import storage
from ...shards.evalsets.base import EvalSet
from ...shards.evalsets.builtin import BUILTIN
from ..run_results import Measured
from .source import RunData


def example_banks(run: RunData, models: Sequence[Measured]) -> list[pa.Table]:
    """One bank per set, of the suite that shows most; no set has more than its share of the pictures."""
    sets = evalsets_of(run)
    told = [(m.arm, m.folder, read_results(m.folder)) for m in models]
    banks = []
    for evalset in sets:
        seen = seen_on(told, evalset.name)
        if seen:
            banks.append(collect(evalset, seen, PICTURES // len(sets)))
    return banks


def evalsets_of(run: RunData) -> list[EvalSet]:
    """The evaluation sets of a run's config; built-in ones as its stages wrote them."""
    found: list[EvalSet] = []
    for source in run.config.eval.data if run.config.eval else ():
        if source.path in BUILTIN:
            built = run.inputs.get(f"stage/evalset/{source.path}")
            if built is None:
                continue
            source = source.at(storage.join(built.data, built.summary["folder"]))
        found += source.open()
    return found
