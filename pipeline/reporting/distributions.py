"""What every score column holds: histograms of numbers, the commonest words and flags, and what cannot be drawn.

Only fetched rows count. The columns of the whole pool go through one worker, one at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...eval.report.data import Commonest, Histogram, Split
from ...shards import storage
from ...shards.shard import usable
from ..decisions import read_decision
from .cuts import group_thresholds, lines
from .source import Link, RunData
from .truth import Truth

BINS = 60
WORDS = 12  # commonest values that are shown
DIFFERENT = 100_000  # values up to which words are counted
MORE_COLUMNS = 24  # of one score, beside its main one, that are drawn

Kind = Literal["numbers", "words", "flags"]
Count = Callable[[Sequence[np.ndarray]], list[int]]


@dataclass
class Distributions:
    """All columns of all scores.

    Attributes:
        not_drawn: score -> column -> what it holds instead.
    """

    histograms: list[Histogram] = field(default_factory=list)
    commonest: list[Commonest] = field(default_factory=list)
    not_drawn: dict[str, dict[str, str]] = field(default_factory=dict)


def distributions(run: RunData, truth: Truth | None, told: Sequence[str] = ()) -> Distributions:
    """The distribution of every column over the fetched pool, and where each subset cut it.

    Args:
        told: columns of words that the page shows elsewhere.
    """
    found = Distributions()
    masks = [usable(shard.read_table(["status"])) for shard in run.shards]
    cut = dict.fromkeys(c for link in run.distinct_links if isinstance(c := _cut_column(link), str))
    for score in run.named("score"):
        types = _types(run, score)
        extra = [column for column in types if column != score and column not in cut]
        left_out = extra[MORE_COLUMNS:]
        for column, kind in types.items():
            if column not in left_out and column not in told:
                _draw(run, score, column, kind, masks, truth, found)
        if left_out:
            more = {f"{left_out[0]} and {len(left_out) - 1} more": "columns of this score beyond the first"}
            found.not_drawn.setdefault(score, {}).update(more)
    drawn = {h.column for h in found.histograms} | {c.column for c in found.commonest}
    for column in cut:
        in_row_table = run.store.score_of(column) is None and column in run.shards[0].column_names()
        if in_row_table and column not in drawn and _kind(run.shards[0].read_table([column])[column].type) == "numbers":
            histogram = _histogram(run, column, _values(run, column, masks), masks, truth)
            found.histograms += [histogram] if histogram else []
    return found


def _cut_column(link: Link) -> str | None:
    return link.artifact.summary["facts"].get("column")


def _types(run: RunData, score: str) -> dict[str, pa.DataType]:
    """Columns of a score, its main one first; of a column without values in the first shards, the first real type."""
    types: dict[str, pa.DataType] = {}
    for shard in run.shards:
        schema = pq.read_schema(storage.local(storage.join(run.store.scores[score], f"{shard.name}.parquet")))
        for column in schema:
            if pa.types.is_null(types.get(column.name, pa.null())):
                types[column.name] = column.type
        if not any(pa.types.is_null(t) for t in types.values()):
            break
    return {name: types[name] for name in sorted(types, key=lambda n: n != score)}


def _kind(type_: pa.DataType) -> Kind | None:
    """How a column is drawn; 64 bits without a sign are a hash, not a number."""
    if pa.types.is_boolean(type_):
        return "flags"
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "words"
    if pa.types.is_floating(type_) or (pa.types.is_integer(type_) and type_ != pa.uint64()):
        return "numbers"
    return None


def _draw(
    run: RunData,
    score: str,
    column: str,
    type_: pa.DataType,
    masks: Sequence[np.ndarray],
    truth: Truth | None,
    found: Distributions,
) -> None:
    kind = _kind(type_)
    if kind == "numbers":
        histogram = _histogram(run, column, _values(run, column, masks), masks, truth)
        if histogram:
            found.histograms.append(histogram)
        else:
            found.not_drawn.setdefault(score, {})[column] = "no value in any row"
    elif kind is not None:
        counted = _commonest(run, column, masks)
        if isinstance(counted, Commonest):
            found.commonest.append(counted)
        else:
            found.not_drawn.setdefault(score, {})[column] = counted
    else:
        told = "no value in any row" if pa.types.is_null(type_) else str(type_)
        found.not_drawn.setdefault(score, {})[column] = told


def _values(run: RunData, column: str, masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Numbers of all rows of each part, ``(n,) float32``; NaN where there is none, and for rows that do not count."""
    found = []
    for i, mask in enumerate(masks):
        values = run.store.part(i).arrow(column).cast(pa.float32(), safe=False).to_numpy()
        found.append(np.where(mask, values, np.float32(np.nan)))
    return found


def _histogram(
    run: RunData, column: str, values: list[np.ndarray], masks: Sequence[np.ndarray], truth: Truth | None
) -> Histogram | None:
    present = [finite for v in values if len(finite := v[np.isfinite(v)])]
    if not present:
        return None
    low, high = min(float(v.min()) for v in present), max(float(v.max()) for v in present)
    room = max(0.5, 1e-6 * abs(low)) if low == high else 0.0
    edges = np.linspace(low - room, high + room, BINS + 1)

    def count(pieces: Sequence[np.ndarray]) -> list[int]:
        total = np.zeros(BINS, np.int64)
        for piece in pieces:
            total += np.histogram(piece[np.isfinite(piece)], edges)[0]
        return total.tolist()

    missing = sum(int(mask.sum()) for mask in masks) - sum(map(len, present))
    histogram = Histogram(column, edges.tolist(), count(values), missing=missing, low=low, high=high)
    histogram.splits = [s for link in run.distinct_links if (s := _split(run, link, column, values, count))]
    if truth is not None:
        wrong = [truth.of(i).wrong_caption for i in range(len(values))]
        histogram.correct = count([v[~w] for v, w in zip(values, wrong, strict=True)])
        histogram.wrong = count([v[w] for v, w in zip(values, wrong, strict=True)])
    return histogram


def _split(run: RunData, link: Link, column: str, values: list[np.ndarray], count: Count) -> Split | None:
    facts = link.artifact.summary["facts"]
    if facts.get("column") != column:
        return None
    kept, dropped = [], []
    for shard, all_values in zip(run.shards, values, strict=True):
        decision = read_decision(link.artifact.data, shard.name)
        reached = all_values[decision["row"].to_numpy()]
        keep = decision["keep"].to_numpy()
        kept.append(reached[keep])
        dropped.append(reached[~keep])
    again = sum(other.subset == link.subset and _cut_column(other) == column for other in run.distinct_links) > 1
    groups = len(group_thresholds(facts))
    return Split(link.subset, lines(facts), count(kept), count(dropped), link.label if again else "", groups)


def _commonest(run: RunData, column: str, masks: Sequence[np.ndarray]) -> Commonest | str:
    """Values of words or flags; a few words when there is nothing common about them."""
    counter: Counter[str] = Counter()
    rows = 0
    for i, mask in enumerate(masks):
        values = run.store.part(i).arrow(column).filter(pa.array(mask))
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        rows += len(values)
        for entry in pc.value_counts(values.drop_null()).to_pylist():  # type: ignore[attr-defined]
            value = entry["values"]
            word = ("yes" if value else "no") if isinstance(value, bool) else value
            counter[word] += entry["counts"]
        if len(counter) > DIFFERENT:
            return f"text with more than {DIFFERENT:,} different values"
    present = counter.total()
    if not present:
        return "no value in any row"
    if len(counter) > WORDS and len(counter) > present / 2:
        return "text, nearly every row another"
    top = dict(sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:WORDS])
    return Commonest(column, top, len(counter), present - sum(top.values()), rows - present)
