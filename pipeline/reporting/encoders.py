"""What looked at the pool: for every encoder, score of pixels and import, where each row of the pool ended.

Counts come from the stages' own summaries where these have them, and from the columns where not. What nobody explains
is counted as unexplained, so that it shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...eval.report.data import Look, Tally
from ...filters.base import PixelScorer
from ...shards import storage
from ...shards.shard import succeeded, usable
from ..artifact import Artifact
from .source import RunData

NOT_FETCHED, CORRUPT, MISSING = "not fetched", "corrupt", "missing from the tar"
NO_CAPTION, NOT_FINITE, UNEXPLAINED = "no caption", "not finite", "unexplained"
NO_MATCH, NO_VALUE, UNREADABLE = "no match in the files", "no value in the files", "corrupt or missing from the tar"
JOIN = ("rows", "malformed", "repeated", "conflicting", "not_in_pool")
"""Counts of an import's own files that are shown."""


def looks(run: RunData) -> list[Look]:
    """Who looked, in the order of the config: encoders, then scores."""
    if not run.shards:
        return []
    found = [_embedded(run, name, artifact) for name, artifact in run.named("embed").items()]
    for name, artifact in run.named("score").items():
        scorer = run.config.scores[name]
        if isinstance(scorer, PixelScorer):
            found.append(_pixels(run, name, artifact))
        elif scorer.type == "import":
            found.append(_imported(run, name, artifact))
    return found


def _embedded(run: RunData, name: str, artifact: Artifact) -> Look:
    summary = artifact.summary
    imported = "matched" in summary.get("facts", {})
    rows, counts = run.pool.summary["rows"], dict.fromkeys(("images", "texts"), 0) | summary
    if imported:
        facts = summary["facts"]
        nulls = {NOT_FETCHED: rows - run.pool.summary["usable"], NO_MATCH: facts["unmatched"]}
        said = {"images": nulls, "texts": nulls}
        rest = NO_VALUE
    else:
        fetched, captions = _fetched(run)
        away = {NOT_FETCHED: rows - fetched}
        pictures = {**away, CORRUPT: summary.get("corrupt", 0), MISSING: summary.get("missing", 0)}
        said = {"images": pictures, "texts": {**away, NO_CAPTION: fetched - captions}}
        rest = NOT_FINITE if summary.get("not_finite") else UNEXPLAINED
    tallies = [
        _tally(what, rows, counts[key], said[key], rest)
        for key, modality, what in (("images", "image", "pictures"), ("texts", "text", "captions"))
        if _has(run, artifact, modality)
    ]
    files = _join_facts(summary["facts"]) if imported else {k: summary[k] for k in ("masked",) if k in summary}
    return Look(name, "imported embeddings" if imported else "encoder", rows, tallies, files)


def _has(run: RunData, artifact: Artifact, modality: str) -> bool:
    return storage.exists(storage.join(artifact.data, f"{run.shards[0].name}.{modality}.npy"))


def _tally(what: str, rows: int, values: int, nulls: dict[str, int], rest: str) -> Tally:
    """Reasons with their counts; what is left of the rows goes to `rest`."""
    left = rows - values - sum(nulls.values())
    return Tally(what, values, {reason: n for reason, n in {**nulls, rest: left}.items() if n})


def _fetched(run: RunData) -> tuple[int, int]:
    """Rows with an image, and those of them with a caption."""
    fetched = captions = 0
    for shard in run.shards:
        table = shard.read_table(["status", "caption"])
        there = succeeded(table)
        fetched += int(there.sum())
        captions += int((there & table["caption"].is_valid().to_numpy()).sum())
    return fetched, captions


def _join_facts(facts: dict[str, Any]) -> dict[str, int]:
    return {name: facts[name] for name in JOIN if name in facts}


def _pixels(run: RunData, name: str, artifact: Artifact) -> Look:
    """A score of pixels. Whether a picture can be read is up to the picture, so an encoder's counts explain it too."""
    values = fetched = 0
    for i, shard in enumerate(run.shards):
        there = succeeded(shard.read_table(["status"]))
        values += int((_has_value(run, i, name) & there).sum())
        fetched += int(there.sum())
    rows = run.pool.summary["rows"]
    nulls, left = {NOT_FETCHED: rows - fetched}, fetched - values
    told = [artifact.summary, *(a.summary for a in run.named("embed").values())]
    seen = next((summary for summary in told if "corrupt" in summary), None)
    if seen is not None and seen["corrupt"] + seen["missing"] <= left:
        nulls |= {CORRUPT: seen["corrupt"], MISSING: seen["missing"]}
        rest = "no result"
    else:
        rest = UNREADABLE
    return Look(name, "score of pixels", rows, [_tally("pictures", rows, values, nulls, rest)])


def _imported(run: RunData, name: str, artifact: Artifact) -> Look:
    facts = artifact.summary.get("facts", {})
    values = away = 0
    for i, shard in enumerate(run.shards):
        counts = usable(shard.read_table(["status"]))
        values += int((_has_value(run, i, name) & counts).sum())
        away += int((~counts).sum())
    rows = run.pool.summary["rows"]
    nulls = {NOT_FETCHED: away, NO_MATCH: facts.get("unmatched", 0)}
    return Look(name, "imported score", rows, [_tally("rows", rows, values, nulls, NO_VALUE)], _join_facts(facts))


def _has_value(run: RunData, index: int, column: str) -> np.ndarray:
    """Mask ``(n,) bool`` of the rows whose value is neither null nor NaN."""
    values = run.store.part(index).arrow(column)
    there = values.is_valid().to_numpy()
    if pa.types.is_floating(values.type):
        numbers = pc.fill_null(pc.is_nan(values), False)  # type: ignore[attr-defined]
        there = there & ~np.asarray(numbers)
    return np.asarray(there, bool)
