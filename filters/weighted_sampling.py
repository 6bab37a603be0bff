"""`weighted_sampling`: a random sample in which heavier rows are likelier, with or without replacement, exact.

Without replacement the rows come one after another, each with a probability proportional to its weight among those
left, as NumPy's ``choice(replace=False, p=w)``; with replacement the counts are multinomial. Size and law are exact, no
row's fate depends on the sharding, and nothing pool-sized sits anywhere (`capped_draw.py`). A smaller sample with the
same seed is part of a larger one.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ..errors import DataError
from .arrivals import Weights
from .base import FILTERS, Decision, Filter, Part, Pool
from .capped_draw import Race, weigh
from .draw_size import DrawSize, Repeats
from .hard_cap_sampling import CappedDraw, run_race


@FILTERS.register
class WeightedSampling(DrawSize, Filter):
    """Draw a sample in which a row's chance is proportional to its weight."""

    type: Literal["weighted_sampling"] = "weighted_sampling"
    by: str = Field(description="Column with the weights, not negative; a row with weight 0 is never drawn.")
    temperature: float | None = Field(
        None, gt=0, description="Use exp(value / temperature) as the weight instead of the value itself."
    )
    replacement: bool = Field(False, description="Draw with replacement: a row may be drawn, and kept, several times.")
    seed: int = Field(0, ge=0, description="Another number draws other samples, independently of the run's seed.")

    def columns(self) -> list[str]:
        return ["uid", self.by]

    def fit(self, pool: Pool) -> CappedDraw:
        weights = Weights(self.by, self.temperature)
        cap = None if self.replacement else 1
        race = Race(weights, pool.seed, f"weighted_sampling/{self.seed}", cap)
        mass = weigh(pool, weights, self.type)
        if not mass.rows:
            return CappedDraw(race, None, mass, Repeats.merge([]))
        total = self.draws(mass.rows)
        if not mass.possible or (cap and mass.possible < total):
            raise DataError(
                f"weighted_sampling: {total} samples asked for, but only {mass.possible} of {mass.rows} rows have a "
                "weight above 0; draw fewer" + (", or with `replacement`" if mass.possible else "")
            )
        return run_race(pool, race, total, mass)

    def decide(self, part: Part, state: CappedDraw) -> Decision:
        times = state.times(part)
        return Decision(times > 0, state.race.weights.values(part), "not_drawn", times)

    def describe(self, state: CappedDraw) -> dict[str, Any]:
        return {"column": self.by, "replacement": self.replacement} | state.facts() | self.budget_facts()
