"""`fairness_balance`: thin a pool out so that attributes get stated shares and stop predicting labels (M4).

Find the chance q of every sample, as near as can be to one chance for all, such that

    E_q[s_k] = target_k                                   representation of attribute k
    |E_q[(s_k - target_k) (y_r - mean y_r)]| <= epsilon   association of attribute k with label r
    E[q] = keep

(Alabdulmohsin et al., arXiv 2403.04547.) Attributes and labels are yes/no columns, so samples that agree in all of them
share a q: one pass counts these cells, and the dual is climbed over cells, not samples. The published ascent walks the
samples one by one; its result depends on their order, this one's on nothing but the counts. A sample stays if its keyed
hash lies below q, so the size is met on average (deviation about the square root of it).

Targets that no choice of q can meet are not refused: the nearest compromise is used, and the facts say what is missing
(`residual`, `feasible`), before and after the draw. What is null counts as no.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from ..errors import DataError
from .base import FILTERS, Decision, Filter, Part, Pool
from .counters import Counters, sum_counters
from .draw import uid_hash

RIDGE = 1e-7  # how much a residual weighs in the dual; keeps the multipliers finite where targets cannot be met
FEASIBLE = 1e-3
MAX_CELLS = 1 << 20


@dataclass(frozen=True)
class Cells:
    """Samples that agree in all attributes and labels, and their chance.

    Attributes:
        counts: rows of each cell; the key's bits are the indicators.
        chance: ``(m,) float64``, q of each.
        facts: for the report.
        seed: of the run.
    """

    counts: Counters
    chance: np.ndarray
    facts: dict[str, Any]
    seed: int

    def of(self, keys: np.ndarray) -> np.ndarray:
        """q of each cell key."""
        return self.chance[np.searchsorted(self.counts.keys, keys)]


@FILTERS.register
class FairnessBalance(Filter):
    """Give attributes stated shares, and make them independent of labels (M4)."""

    type: Literal["fairness_balance"] = "fairness_balance"
    attributes: dict[str, float] = Field(
        min_length=1,
        description="Share, 0-1, that each attribute is to have. An attribute is a yes/no (or 0/1) column, or "
        "`column=value`.",
    )
    labels: list[str] = Field(
        default_factory=list, description="Labels that attributes must not go along with, named as attributes are."
    )
    epsilon: float = Field(0.01, ge=0, description="Largest covariance of an attribute with a label.")
    keep: float = Field(0.5, gt=0, le=1, description="Share of the samples to keep, on average.")
    seed: int = Field(0, ge=0, description="Another number draws other samples, independently of the run's seed.")

    @model_validator(mode="after")
    def _sane(self) -> Self:
        if any(not 0 <= share <= 1 for share in self.attributes.values()):
            raise ValueError("the shares of attributes are between 0 and 1")
        if len(self._indicators()) > 40:
            raise ValueError("attributes and labels are 40 at most; merge or leave out some")
        return self

    def _indicators(self) -> list[str]:
        return [*self.attributes, *self.labels]

    def columns(self) -> list[str]:
        return list(dict.fromkeys(["uid", *(spec.partition("=")[0] for spec in self._indicators())]))

    def fit(self, pool: Pool) -> Cells:
        counts = sum_counters(pool, _count, self._indicators())
        if len(counts.keys) > MAX_CELLS:
            raise DataError(f"fairness_balance: {len(counts.keys)} different combinations; name fewer labels")
        if not len(counts.keys):
            return Cells(counts, np.empty(0), {"rows": 0}, pool.seed)
        problem = Problem.of(counts, list(self.attributes.values()), len(self.labels), self.epsilon, self.keep)
        chance = pool.call(solve, problem)
        cells = Cells(counts, chance, {}, pool.seed)
        drawn = sum_counters(pool, _drawn, self._indicators(), cells, self._purpose())
        got = drawn.at(counts.keys) / counts.counts
        return Cells(counts, chance, self._facts(problem, chance, got), pool.seed)

    def _purpose(self) -> str:
        return f"fairness_balance/{self.seed}"

    def _facts(self, problem: Problem, chance: np.ndarray, got: np.ndarray) -> dict[str, Any]:
        before, expected, after = (problem.moments(q) for q in (np.ones(len(chance)), chance, got))
        attributes = {
            name: {
                "target": share,
                "before": before.shares[i],
                "expected": expected.shares[i],
                "after": after.shares[i],
            }
            for i, (name, share) in enumerate(self.attributes.items())
        }
        return {
            "rows": int(problem.rows),
            "cells": len(chance),
            "attributes": attributes,
            "association": {
                "allowed": self.epsilon,
                "before": before.association,
                "expected": expected.association,
                "after": after.association,
            },
            "keep": {"asked": self.keep, "expected": expected.size, "after": after.size},
            "residual": expected.residual,
            "residual_after": after.residual,
            "feasible": bool(expected.residual <= FEASIBLE),
        }

    def decide(self, part: Part, state: Cells) -> Decision:
        chance = state.of(_keys(part, self._indicators())) if len(part) else np.empty(0)
        return Decision(_lots(part, state, self._purpose()) < chance, chance.astype(np.float32), "thinned_out")

    def describe(self, state: Cells) -> dict[str, Any]:
        return state.facts


@dataclass(frozen=True)
class Moments:
    """What some chances lead to; all Python numbers."""

    shares: list[float]
    association: float
    size: float
    residual: float


@dataclass(frozen=True)
class Problem:
    """The constraints over cells.

    Attributes:
        weights: ``(m,)``, share of the rows.
        equal: ``(m, k)`` columns whose weighted mean under q is 0, representation.
        bounded: ``(m, k r)`` columns whose weighted mean under q is within ``+- epsilon keep``.
        present: ``(m, k)`` the attributes.
    """

    rows: int
    weights: np.ndarray
    equal: np.ndarray
    bounded: np.ndarray
    present: np.ndarray
    targets: np.ndarray
    epsilon: float
    keep: float

    @classmethod
    def of(cls, counts: Counters, targets: list[float], labels: int, epsilon: float, keep: float) -> Problem:
        bits = (counts.keys[:, None] >> np.arange(len(targets) + labels)) & 1
        weights = counts.counts / counts.counts.sum()
        target = np.array(targets, np.float64)
        equal = bits[:, : len(targets)] - target
        label = bits[:, len(targets) :] - weights @ bits[:, len(targets) :]
        bounded = (equal[:, :, None] * label[:, None, :]).reshape(len(weights), -1)
        present = bits[:, : len(targets)].astype(np.float64)
        return cls(int(counts.counts.sum()), weights, equal, bounded, present, target, epsilon, keep)

    def moments(self, q: np.ndarray) -> Moments:
        """What chances `q` lead to; the residual is the largest violation, of shares, association or size."""
        mass = self.weights * q
        size = float(mass.sum())
        if size == 0:
            return Moments([0.0] * len(self.targets), 0.0, 0.0, 1.0)
        shares = mass @ self.present / size
        association = float(np.abs(mass @ self.bounded / size).max(initial=0))
        residual = max(float(np.abs(shares - self.targets).max()), association - self.epsilon, 0.0)
        return Moments(shares.tolist(), association, size, max(residual, abs(size - self.keep)))


def solve(problem: Problem) -> np.ndarray:
    """q of every cell, ``(m,) float64``: the dual, concave and smooth, by L-BFGS with bounds from zero."""
    from scipy.optimize import minimize

    m = len(problem.weights)
    slack = problem.epsilon * problem.keep
    columns = np.concatenate([problem.equal, np.ones((m, 1)), problem.bounded, -problem.bounded], axis=1)
    free, tied = problem.equal.shape[1] + 1, problem.bounded.shape[1]
    limits = np.concatenate([np.zeros(free - 1), [problem.keep], np.full(2 * tied, slack)])

    def chances(multipliers: np.ndarray) -> np.ndarray:
        return np.clip(problem.keep - columns @ multipliers, 0, 1)

    def descend(multipliers: np.ndarray) -> tuple[float, np.ndarray]:
        q = chances(multipliers)
        excess = (problem.weights * q) @ columns - limits
        distance = 0.5 * float(problem.weights @ (q - problem.keep) ** 2)
        ridge = 0.5 * RIDGE * float(multipliers @ multipliers)
        return ridge - distance - float(multipliers @ excess), RIDGE * multipliers - excess

    bounds = [(None, None)] * free + [(0.0, None)] * (2 * tied)
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    found = minimize(descend, np.zeros(len(limits)), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return chances(found.x)


def _keys(part: Part, indicators: list[str]) -> np.ndarray:
    """``(n,) int64``, bit i = indicator i."""
    keys = np.zeros(len(part), np.int64)
    for bit, spec in enumerate(indicators):
        keys |= indicator(part, spec).astype(np.int64) << bit
    return keys


def indicator(part: Part, spec: str) -> np.ndarray:
    """``(n,) bool``: a yes/no column, or whether a column has a value; null and NaN are no.

    Raises:
        DataError: a column that is neither yes/no nor 0/1.
    """
    import pyarrow.compute as pc

    column, has_value, value = spec.partition("=")
    values = part.arrow(column)
    if has_value:
        return pc.equal(values.cast(pa.string()), value).fill_null(False).to_numpy().astype(bool)  # type: ignore[attr-defined]
    if pa.types.is_null(values.type):
        return np.zeros(len(part), bool)
    if pa.types.is_boolean(values.type):
        return values.fill_null(False).to_numpy().astype(bool)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise DataError(f"column {column!r} holds {values.type}, not yes/no; name the value: {column}=VALUE")
    numbers = np.nan_to_num(values.cast(pa.float64(), safe=False).to_numpy())
    if not np.isin(numbers, (0, 1)).all():
        raise DataError(f"column {column!r} holds numbers other than 0 and 1; name the value: {column}=VALUE")
    return numbers == 1


def _lots(part: Part, cells: Cells, purpose: str) -> np.ndarray:
    return np.ldexp((uid_hash(part.uids(), cells.seed, purpose) >> np.uint64(11)).astype(np.float64), -53)


def _count(part: Part, indicators: list[str]) -> Counters:
    return Counters.of(_keys(part, indicators))


def _drawn(part: Part, indicators: list[str], cells: Cells, purpose: str) -> Counters:
    keys = _keys(part, indicators)
    return Counters.of(keys[_lots(part, cells, purpose) < cells.of(keys)] if len(part) else keys)
