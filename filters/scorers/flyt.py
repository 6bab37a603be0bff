"""`flyt`: what a pair is worth to a downstream task, by a head on its embeddings that learned it from gradients.

The head sees the concatenated image and caption embedding of one encoder (frozen, so no second pass over the images is
needed to score the pool) and is trained as `pretrain/weighing/flyt.py` says. Several seeds are averaged: each head's
scores have an arbitrary offset, so only their mean is a score and their differences are not an uncertainty of a row.
The price: a training for a GPU, and 4 Mflop a row and seed for 512-dimensional embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...errors import DataError
from ...pretrain.weighing.flyt_options import FlytTraining
from ...shards import storage
from ...shards.evalsets.source import EvalSource
from ..base import SCORERS, Columns, Context, LoadEncoder, Part, Scorer
from .mix import run_facts, thinned

BLOCK = 8192


class HeadTraining(FlytTraining):
    """How the head is trained."""

    seeds: int = Field(1, ge=1, description="Heads that differ by seed; their mean is the score.")
    hidden: int = Field(0, ge=0, description="Width of the head's hidden layer; 0 = that of its input.")


@dataclass(frozen=True)
class FlytState:
    """What `Flyt.fit` found: one dictionary of arrays per head, and the facts of their trainings."""

    heads: list[dict[str, np.ndarray]]
    runs: list[dict[str, Any]]


@SCORERS.register
class Flyt(Scorer):
    """Score of a head trained on downstream gradients (FLYT)."""

    whole_pool: ClassVar[bool] = True
    type: Literal["flyt"] = "flyt"
    features: str = Field(description="Encoder whose frozen embeddings the head sees.")
    train: HeadTraining = Field(description="How the head is trained, and what judges.")

    def columns(self) -> list[str]:
        return [f"{self.features}.image", f"{self.features}.text"]

    def encoders(self) -> list[str]:
        return self.train.reference_encoders()

    def evalsets(self) -> list[EvalSource]:
        return [EvalSource(path=self.train.downstream)]

    def architectures(self) -> list[str]:
        return [self.train.model] if self.train.model else []

    def files(self) -> list[str]:
        return self.train.reference_files()

    def fit(self, context: Context) -> FlytState:
        encoder = None if self.train.encoder is None else context.encoder(self.train.encoder)
        judge = context.evalset(EvalSource(path=self.train.downstream)).path
        arguments = (self.train, self.features, context.columns, judge, encoder)
        seeds = [1000 * context.seed + s for s in range(self.train.seeds)]
        results = context.map(_train_head, {f"seed{s}": (*arguments, s, seed) for s, seed in enumerate(seeds)})
        runs = [results[f"seed{s}"] for s in range(self.train.seeds)]
        heads = context.call(_read_heads, [run["file"] for run in runs])
        facts = [{"seed": seed, **run["facts"], "points": run["curve"]} for seed, run in zip(seeds, runs, strict=True)]
        return FlytState(heads, facts)

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        image, text = (part.array(column) for column in self.columns())
        found = np.zeros(len(part), np.float64)
        for head in state.heads:
            for start in range(0, len(part), BLOCK):
                rows = slice(start, start + BLOCK)
                found[rows] += head_scores(head, np.concatenate([image[rows], text[rows]], 1))
        found /= len(state.heads)
        return {name: np.where(np.isfinite(found), found, np.nan).astype(np.float32)}

    def describe(self, state: Any = None) -> dict[str, Any]:
        if state is None:
            return {}
        width, hidden = state.heads[0]["w1.weight"].shape[1], state.heads[0]["w1.weight"].shape[0]
        return {
            "learned_by": "flyt",
            "head": {"inputs": int(width), "hidden": int(hidden), "count": len(state.heads)},
            "curve": [{"seed": run["seed"], "points": run["points"]} for run in state.runs],
            "training": [{k: v for k, v in run.items() if k != "points"} for run in state.runs],
        }


def head_scores(head: dict[str, np.ndarray], h: np.ndarray) -> np.ndarray:
    """Output of one head for ``h (n, 2E) float32``, ``(n,) float32``; NaN where a row has one."""
    gate = h @ head["w1.weight"].T
    with np.errstate(over="ignore"):
        gate /= 1 + np.exp(-gate)
    return (gate * (h @ head["w3.weight"].T)) @ head["w2.weight"][0] + head["w2.bias"][0]


@dataclass(frozen=True)
class _ReadEmbeddings:
    """Embeddings of rows of one shard, image then text, ``(m, 2E) float16``; a missing one is all 0."""

    columns: Columns
    names: list[str]

    def __call__(self, shard: int, rows: np.ndarray) -> np.ndarray:
        part = self.columns.part(shard, rows)
        both = np.concatenate([part.array(name) for name in self.names], 1)
        both[~np.isfinite(both).all(1)] = 0
        return both.astype(np.float16)


def _train_head(
    task: Any,
    options: HeadTraining,
    features: str,
    columns: Columns,
    downstream: str,
    encoder: LoadEncoder | None,
    number: int,
    seed: int,
) -> dict[str, Any]:
    from safetensors.numpy import save_file

    from ...pretrain.weighing.flyt import make_head, train_scorer

    names = [f"{features}.image", f"{features}.text"]
    report = train_scorer(
        options,
        list(columns.shards),
        _ReadEmbeddings(columns, names),
        downstream,
        partial(make_head, seed, options.hidden),
        seed,
        task.scratch,
        inputs=features,
        encoder=None if encoder is None else encoder.load(),
        progress=task.progress,
    )
    path = storage.join(task.out, f"head{number}.safetensors")
    with storage.publishing(path) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in sorted(report.scorer.items())}, temporary)
    return {"file": path, "curve": thinned(report.curve), "facts": run_facts(report)}


def _read_heads(files: list[str]) -> list[dict[str, np.ndarray]]:
    from safetensors.numpy import load_file

    for path in files:
        if not storage.exists(path):
            raise DataError(f"the trained head {path} is gone; remove the score's artifact and run again")
    return [load_file(storage.local(path)) for path in files]
