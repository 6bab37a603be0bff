"""`hard_cap_sampling`: draw with repeats by a score, no row more than `cap` times (HCS of FLYT, arXiv 2503.08805).

The published loop draws batches with replacement, throws away what goes over the cap, and lets rows at the cap take
part no more: the law of drawing one at a time from those below their cap, which is what this draws, exactly, in a few
passes over the score and without anything pool-sized anywhere (`capped_draw.py`). The same rows for any sharding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ..errors import DataError
from .arrivals import Weights
from .base import FILTERS, Decision, Filter, Part, Pool
from .capped_draw import End, Mass, Race, last_ring, weigh
from .draw_size import DrawSize, Repeats


@dataclass(frozen=True)
class CappedDraw:
    """The outcome of a race.

    Attributes:
        race: who ran.
        end: its last ring; None for an empty pool.
        mass: the weights.
        repeats: how often rows were drawn.
    """

    race: Race
    end: End | None
    mass: Mass
    repeats: Repeats

    def times(self, part: Part) -> np.ndarray:
        """How often each alive row of the part is drawn, ``(n,) int32``."""
        return self.end.times(self.race, part) if self.end else np.zeros(len(part), np.int32)

    def facts(self) -> dict[str, Any]:
        """For the report."""
        return {"rows": self.mass.rows, "possible": self.mass.possible} | self.repeats.facts()


def run_race(pool: Pool, race: Race, total: int, mass: Mass) -> CappedDraw:
    """Draw `total` samples, at most ``race.cap`` times each; at least one row must be possible."""
    end = last_ring(pool, race, total, mass)
    return CappedDraw(race, end, mass, Repeats.merge(pool.map(_repeats, race, end)))


def _repeats(part: Part, race: Race, end: End) -> Repeats:
    return Repeats.of(end.times(race, part))


@FILTERS.register
class HardCapSampling(DrawSize, Filter):
    """Draw samples with repeats by a score, each at most `cap` times."""

    type: Literal["hard_cap_sampling"] = "hard_cap_sampling"
    by: str = Field(description="Column to draw by; a difference of 1 in it is a factor e in probability.")
    temperature: float = Field(1.0, gt=0, description="Divides the scores; small values favour the best more.")
    cap: int = Field(15, ge=1, description="Most draws of one row.")
    seed: int = Field(0, ge=0, description="Another number draws other samples, independently of the run's seed.")

    def columns(self) -> list[str]:
        return ["uid", self.by]

    def fit(self, pool: Pool) -> CappedDraw:
        weights = Weights(self.by, self.temperature)
        race = Race(weights, pool.seed, f"hard_cap_sampling/{self.seed}", self.cap)
        mass = weigh(pool, weights, self.type)
        if not mass.rows:
            return CappedDraw(race, None, mass, Repeats.merge([]))
        total = self.draws(mass.rows)
        if self.cap * mass.possible < total:
            raise DataError(
                f"hard_cap_sampling: {total} draws asked for, but {mass.possible} rows with a probability above 0, "
                f"each at most {self.cap} times, allow {self.cap * mass.possible}; draw fewer or raise `cap`"
            )
        return run_race(pool, race, total, mass)

    def decide(self, part: Part, state: CappedDraw) -> Decision:
        times = state.times(part)
        return Decision(times > 0, state.race.weights.values(part), "not_drawn", times)

    def describe(self, state: CappedDraw) -> dict[str, Any]:
        return {"column": self.by, "cap": self.cap} | state.facts() | self.budget_facts()
