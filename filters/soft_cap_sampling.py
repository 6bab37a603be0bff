"""`soft_cap_sampling`: draw with repeats, every draw less likely than the last (SCS of FLYT, arXiv 2503.08805).

    while fewer than `total` are drawn:  p = softmax(score / temperature);  draw `batch` rows without replacement by p;
                                         the logit of each drawn row falls by alpha

Good samples are seen more often, none without limit: the best published use of repeats (with learned mixing, IN 40.1 on
DataComp-medium). A row's number of draws is its multiplicity, and training honours it. The law is the published one,
exactly (`soft_cap.py`), and the last batch is as large as what is left. After another filter it draws from what that
one kept, so set-level selection, learned mixing and capped sampling are two lines:

    curated:
      - {type: submodular, encoder: clip, by: mixed, keep: 0.2}
      - {type: soft_cap_sampling, by: mixed, total: auto}

Every batch depends on all batches before it, so the draw is made by one worker, which holds uid, score and bookkeeping
of the rows that can be drawn: at most `total` of them, however large the pool is, because a row whose first ring comes
after that of `total` others is never reached. About 115 bytes a row at the peak, most of it while rows are gathered,
24 of them for the draw: 1.1 GB for 10 M rows (measured, 18 s of CPU), so 15 GB for 128 M. Nothing here is approximate;
if that is too much, `hard_cap_sampling` needs none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ..errors import DataError
from .arrivals import Weights, first_rings
from .base import FILTERS, Decision, Emitted, Filter, Part, Pool, Routed
from .capped_draw import Race, last_ring, weigh
from .draw import uid_hash
from .draw_size import DrawSize, Repeats
from .soft_cap import soft_cap

BATCHES = 1280  # 128 M draws in batches of 100,000, as published


@dataclass(frozen=True)
class SoftDraw:
    """The outcome.

    Attributes:
        routed: ``times`` of every row that could be drawn; None when there was nothing to draw from.
        repeats: how often rows were drawn.
        rows, possible: rows that reached the filter, and those with a weight above 0.
        batch: rows per batch.
    """

    routed: Routed | None
    repeats: Repeats
    rows: int
    possible: int
    batch: int


@FILTERS.register
class SoftCapSampling(DrawSize, Filter):
    """Draw samples with repeats by a score; every draw of a sample makes the next one less likely."""

    type: Literal["soft_cap_sampling"] = "soft_cap_sampling"
    by: str = Field(description="Column to draw by; a difference of 1 in it is a factor e in probability.")
    temperature: float = Field(1.0, gt=0, description="Divides the scores; small values favour the best more.")
    alpha: float = Field(0.15, ge=0, description="What every draw takes from a row's logit (score / temperature).")
    batch: int | None = Field(
        None,
        ge=1,
        description="Rows per batch, drawn without replacement; default: total / 1280, the published 100,000 of 128 M.",
    )
    seed: int = Field(0, ge=0, description="Another number draws other samples, independently of the run's seed.")

    def columns(self) -> list[str]:
        return ["uid", self.by]

    def fit(self, pool: Pool) -> SoftDraw:
        weights = Weights(self.by, self.temperature)
        mass = weigh(pool, weights, self.type)
        if not mass.rows:
            return SoftDraw(None, Repeats.merge([]), 0, 0, 0)
        total = self.draws(mass.rows)
        batch = self._batch(total, mass.possible)
        border = np.inf
        if mass.possible > total:  # those behind the first `total` to ring cannot be reached
            border = last_ring(pool, Race(weights, pool.seed, self._purpose(), 1), total, mass).time
        arguments = (weights, pool.seed, self._purpose(), border, total, batch, self.alpha)
        routed = pool.shuffle(_emit, _reduce, 1, *arguments)
        repeats = Repeats.merge(pool.map(_repeats, routed))
        return SoftDraw(routed, repeats, mass.rows, mass.possible, batch)

    def _batch(self, total: int, possible: int) -> int:
        batch = self.batch if self.batch is not None else min(possible, max(1, round(total / BATCHES)))
        if min(batch, total) > possible or not possible:
            raise DataError(
                f"soft_cap_sampling: only {possible} rows have a probability above 0, too few for a batch of "
                f"{batch} without replacement; give a smaller `batch`"
            )
        return batch

    def _purpose(self) -> str:
        return f"soft_cap_sampling/{self.seed}"

    def decide(self, part: Part, state: SoftDraw) -> Decision:
        times = _times(part, state.routed)
        values = Weights(self.by, self.temperature).values(part)
        return Decision(times > 0, values, "not_drawn", times)

    def describe(self, state: SoftDraw) -> dict[str, Any]:
        facts = {"column": self.by, "rows": state.rows, "possible": state.possible, "batch": state.batch}
        return facts | state.repeats.facts() | self.budget_facts()


def _times(part: Part, routed: Routed | None) -> np.ndarray:
    found = routed.of(part) if routed is not None else {}
    return found.get("times", np.zeros(len(part), np.int32))


def _repeats(part: Part, routed: Routed) -> Repeats:
    return Repeats.of(_times(part, routed))


def _emit(part: Part, weights: Weights, seed: int, purpose: str, border: float, *_: Any) -> Emitted:
    values, uids = weights.values(part), part.uids()
    rings = first_rings(uid_hash(uids, seed, purpose), weights.log(values))
    sent = np.flatnonzero((rings <= border) & (rings < np.inf))
    return Emitted(np.zeros(len(sent), np.int64), part.rows[sent], uids[sent], {"value": values[sent]})


def _reduce(
    bucket: int,
    rows: dict[str, np.ndarray],
    weights: Weights,
    seed: int,
    purpose: str,
    border: float,
    total: int,
    batch: int,
    alpha: float,
) -> dict[str, np.ndarray]:
    return {"times": soft_cap(uid_hash(rows["uids"], seed, purpose), rows["value"], weights, total, batch, alpha)}
