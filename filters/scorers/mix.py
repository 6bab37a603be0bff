"""`mix`: a weighted sum of score columns, with weights that are given or learned.

Columns are z-scored by the pool's moments first, so weights can be compared with each other. A missing value counts as
its column's mean, which is 0 then; a row without any value has no score. Three ways to learn the weights:

* ``least_squares`` and ``logistic`` tell trusted rows from the pool's. They cost one pass over the columns and say by
  which scores a trusted row is recognised, which is not quite which scores make a good model;
* ``m_flyt`` asks a downstream task what each step on the pool did to it (`pretrain/weighing/flyt.py`). It is a
  training, for a GPU at any size that matters; its weights carry the spread over seeds.

`Mix.describe` gives, for all of them:

    {"learned_by": "fixed" | "least_squares" | "logistic" | "m_flyt",
     "rows": n, "unscored": rows without any value,
     "weights": [{"column", "weight", "low", "high",        95 % interval, or null
                  "seeds": [one weight per seed] or null,
                  "auc": of the column alone, or null,
                  "mean", "std", "missing"}, ...],
     "interval": how low and high were found, or null,
     "auc": {"value", "trusted": rows, "pool": rows} on held-out rows, or null,
     "curve": [{"seed", "points": [{"step", "upstream_loss", "downstream_loss", "accuracy"}, ...]}, ...],
     "training": [{"seed", "steps", "samples", "corrupt", "replaced"}, ...]}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import ConfigDict, Field, model_validator

from ...errors import DataError
from ...pretrain.weighing.flyt_options import FlytTraining
from ...registry import Options
from ...shards.evalsets.source import EvalSource
from ..base import SCORERS, Columns, Context, LoadEncoder, Part, Pool, Scorer, json_number
from ..draw import draw, uid_hash
from ..mixing import Moments, auc, column_matrix, combined, least_squares, logistic, mixed, moments_of, standardised

CURVE_POINTS = 100
Z95 = 1.959963984540054


class _AgainstPool(Options):
    """Tell trusted rows from the pool's."""

    type: str
    trusted: str = Field(description="Target set whose rows are the good ones; the same columns are scored there.")
    sample: int = Field(200_000, ge=10, description="Rows that are drawn, by their uid, from each side at most.")
    held_out: float = Field(0.2, gt=0, lt=1, description="Share of the drawn rows that the AUC is measured on.")
    ridge: float = Field(1e-3, ge=0, description="Penalty on the squared weights, relative to the mean loss.")


class LeastSquares(_AgainstPool):
    """Ridge regression of trusted = 1, pool = 0 on the z-scores."""

    type: Literal["least_squares"] = "least_squares"


class Logistic(_AgainstPool):
    """Logistic regression of trusted against pool on the z-scores."""

    type: Literal["logistic"] = "logistic"


class MFlyt(FlytTraining):
    """Weights from downstream gradients (M-FLYT)."""

    type: Literal["m_flyt"] = "m_flyt"


Learn = Annotated[LeastSquares | Logistic | MFlyt, Field(discriminator="type")]


@dataclass(frozen=True)
class MixState:
    """What `Mix.fit` found.

    Attributes:
        weights: ``(k,) float64`` in the order of the columns.
        low, high: ``(k,)`` 95 % interval, NaN where there is none; `alone`: each column's own held-out AUC, or NaN.
        interval: how low and high were found.
        per_seed: ``(seeds, k)``.
        held_out: ``{"value", "trusted", "pool"}``.
    """

    moments: Moments
    weights: np.ndarray
    low: np.ndarray
    high: np.ndarray
    alone: np.ndarray
    interval: str | None = None
    per_seed: np.ndarray | None = None
    held_out: dict[str, Any] | None = None
    curve: list[dict[str, Any]] = field(default_factory=list)
    training: list[dict[str, Any]] = field(default_factory=list)


@SCORERS.register
class Mix(Scorer):
    """Weighted sum of z-scored columns."""

    model_config = ConfigDict(populate_by_name=True)
    whole_pool: ClassVar[bool] = True
    type: Literal["mix"] = "mix"
    scores: list[str] = Field(alias="columns", min_length=1, description="Score columns that are mixed.")
    weights: dict[str, float] | None = Field(None, description="Weight of each column's z-score; or use `learn`.")
    learn: Learn | None = Field(None, description="How the weights are learned: least_squares, logistic or m_flyt.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if len(set(self.scores)) < len(self.scores):
            raise ValueError("`columns` names a column twice")
        if (self.weights is None) == (self.learn is None):
            raise ValueError("mix needs `weights` or `learn`, and not both")
        if self.weights is not None:
            if set(self.weights) != set(self.scores):
                raise ValueError("`weights` must have one number for each of `columns`")
            if not np.isfinite(list(self.weights.values())).all():
                raise ValueError("`weights` must be finite")
        return self

    def columns(self) -> list[str]:
        return list(self.scores)

    def targets(self) -> dict[str, list[str]]:
        return {self.learn.trusted: list(self.scores)} if isinstance(self.learn, _AgainstPool) else {}

    def encoders(self) -> list[str]:
        return self.learn.reference_encoders() if isinstance(self.learn, MFlyt) else []

    def evalsets(self) -> list[EvalSource]:
        return [EvalSource(path=self.learn.downstream)] if isinstance(self.learn, MFlyt) else []

    def architectures(self) -> list[str]:
        return [self.learn.model] if isinstance(self.learn, MFlyt) and self.learn.model else []

    def files(self) -> list[str]:
        return self.learn.reference_files() if isinstance(self.learn, MFlyt) else []

    def fit(self, context: Context) -> MixState:
        moments = combined(context.pool.map(moments_of, self.scores), self.scores)
        if isinstance(self.learn, MFlyt):
            return _by_gradients(self.learn, self.scores, moments, context)
        if self.learn is not None:
            sides = [_drawn(p, self.learn, self.scores, context.seed) for p in self._sides(context, self.learn)]
            return context.call(_against_pool, self.learn, moments, *sides, context.seed)
        nothing = np.full(len(self.scores), np.nan)
        given = np.array([(self.weights or {})[name] for name in self.scores], np.float64)
        return MixState(moments, given, nothing, nothing, nothing)

    def _sides(self, context: Context, learn: _AgainstPool) -> tuple[Pool, Pool]:
        return context.target(learn.trusted), context.pool

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        return {name: mixed(column_matrix(part, self.scores), state.moments, state.weights)}

    def describe(self, state: Any = None) -> dict[str, Any]:
        if state is None:
            return {}
        moments: Moments = state.moments
        lines = []
        for i, column in enumerate(self.scores):
            numbers = {"weight": state.weights, "low": state.low, "high": state.high, "auc": state.alone}
            facts = {"column": column, **{key: json_number(values[i]) for key, values in numbers.items()}}
            facts["seeds"] = None if state.per_seed is None else state.per_seed[:, i].tolist()
            of_pool = {"mean": moments.mean[i], "std": moments.std[i]}
            facts |= {key: json_number(value) for key, value in of_pool.items()}
            lines.append({**facts, "missing": int(moments.missing[i])})
        return {
            "learned_by": "fixed" if self.learn is None else self.learn.type,
            "rows": moments.rows,
            "unscored": moments.unscored,
            "weights": lines,
            "interval": state.interval,
            "auc": state.held_out,
            "curve": state.curve,
            "training": state.training,
        }


def _scored(part: Part, columns: list[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    x = column_matrix(part, columns)
    return np.asarray(~np.isnan(x).all(1)), {"x": x}


def _drawn(pool: Pool, learn: _AgainstPool, columns: list[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Drawn rows of one side: their columns ``(m, k)`` and which are held out ``(m,) bool``.

    The draw and the split depend on uids alone, so a row on both sides is held out on both or on neither.
    """
    drawn = draw(pool, learn.sample, seed, "mix", _scored, (columns,), whole=True)
    if not drawn.count:
        return np.empty((0, len(columns))), np.empty(0, bool)
    hashes = uid_hash(drawn.uids, seed, "mix held out")
    return drawn.values["x"], hashes < np.uint64(int(learn.held_out * 2**64))


def _against_pool(
    learn: _AgainstPool,
    moments: Moments,
    trusted: tuple[np.ndarray, np.ndarray],
    pool: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> MixState:
    y = np.r_[np.ones(len(trusted[0]), bool), np.zeros(len(pool[0]), bool)]
    z = standardised(np.concatenate([trusted[0], pool[0]]), moments)
    held_out = np.concatenate([trusted[1], pool[1]])
    for side, name in ((y, f"the trusted set {learn.trusted!r}"), (~y, "the pool")):
        if not (side & ~held_out).any():
            raise DataError(f"{name} has no scored row to learn the mix from; {int(side.sum())} were drawn")
    found = (least_squares if isinstance(learn, LeastSquares) else logistic)(z[~held_out], y[~held_out], learn.ridge)
    test, truth = z[held_out], y[held_out]
    score = np.zeros(len(test))
    for column, weight in zip(test.T, found.weights, strict=True):
        score += weight * column
    alone = np.array([auc(column, truth) for column in test.T])
    facts = {
        "value": json_number(auc(score, truth)),
        "trusted": int(truth.sum()),
        "pool": int((~truth).sum()),
    }
    margin = Z95 * found.errors
    low, high = found.weights - margin, found.weights + margin
    return MixState(moments, found.weights, low, high, alone, "1.96 sandwich standard errors", None, facts)


@dataclass(frozen=True)
class _ReadScores:
    """z-scores of rows of one shard, ``(m, k) float32``, for the training."""

    columns: Columns
    names: list[str]
    moments: Moments

    def __call__(self, shard: int, rows: np.ndarray) -> np.ndarray:
        x = column_matrix(self.columns.part(shard, rows), self.names)
        return standardised(x, self.moments).astype(np.float32)


def _by_gradients(learn: MFlyt, names: list[str], moments: Moments, context: Context) -> MixState:
    encoder = None if learn.encoder is None else context.encoder(learn.encoder)
    judge = context.evalset(EvalSource(path=learn.downstream)).path
    arguments = (learn, names, moments, context.columns, judge, encoder)
    seeds = [1000 * context.seed + s for s in range(learn.seeds)]
    results = context.map(_train_weights, {f"seed{s}": (*arguments, seed) for s, seed in enumerate(seeds)})
    runs = [results[f"seed{s}"] for s in range(learn.seeds)]
    per_seed = np.array([run["weights"] for run in runs], np.float64)
    low, high = mean_interval(per_seed)
    interval = f"Student t over {learn.seeds} seeds" if learn.seeds > 1 else None
    curve = [{"seed": seed, "points": run["curve"]} for seed, run in zip(seeds, runs, strict=True)]
    training = [{"seed": seed, **run["facts"]} for seed, run in zip(seeds, runs, strict=True)]
    alone = np.full(len(names), np.nan)
    return MixState(moments, per_seed.mean(0), low, high, alone, interval, per_seed, None, curve, training)


def _train_weights(
    task: Any,
    learn: MFlyt,
    names: list[str],
    moments: Moments,
    columns: Columns,
    downstream: str,
    encoder: LoadEncoder | None,
    seed: int,
) -> dict[str, Any]:
    from ...pretrain.weighing.flyt import Linear, train_scorer

    report = train_scorer(
        learn,
        list(columns.shards),
        _ReadScores(columns, names, moments),
        downstream,
        Linear,
        seed,
        task.scratch,
        inputs=repr((names, [a.tobytes().hex() for a in (moments.mean, moments.std)])),
        encoder=None if encoder is None else encoder.load(),
        progress=task.progress,
    )
    return {"weights": report.scorer["weight"].tolist(), "curve": thinned(report.curve), "facts": run_facts(report)}


def run_facts(report: Any) -> dict[str, int]:
    """Counts of one training, for the record."""
    return {name: int(getattr(report, name)) for name in ("steps", "samples", "corrupt", "replaced")}


def thinned(curve: list[dict[str, float]], points: int = CURVE_POINTS) -> list[dict[str, float]]:
    """At most `points` of a curve, evenly spread, first and last included."""
    if len(curve) <= points:
        return curve
    return [curve[i] for i in np.linspace(0, len(curve) - 1, points).round().astype(int)]


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of the mean over the first axis, by Student's t; NaN for a single value."""
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    margin = stdtrit(n - 1, 0.975) * values.std(0, ddof=1) / np.sqrt(n)
    return values.mean(0) - margin, values.mean(0) + margin
