"""`keep: auto`: how much of a pool to keep when the training budget is known.

Filtering is not free of the budget: the best tenth of a web pool beats the whole pool in a short training and loses to
it in a long one, because a sample is worth less each time it is seen again (Goyal et al., "Scaling Laws for Data
Filtering", CVPR 2024, arXiv 2404.07177: the utility of a group of samples decays with its repeats, with a half-life).
The rule here is the simplest that follows from it:

    kept = clamp(samples_seen / repeats, least * rows, most * rows)

Keep as many of the best samples as the training sees `repeats` times each. Below that number of views another view of a
chosen sample is worth about as much as a new one (for text up to about 4: Muennighoff et al., NeurIPS 2023); beyond it
the next best unseen sample is worth more. The default of 4 keeps 25 % of the pool at DataComp's budgets, where samples
seen = pool size; published winners there keep 15-30 %, 3 to 7 views.

Caveats. The full law fits a utility and a half-life per quality group from several small trainings; this rule assumes
them. A clean pool carries more repeats, a score that ranks badly fewer. It says how many, never which. It is a default
to start from, so what it chose is always among the filter's facts (``budget``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ..errors import ConfigError
from ..registry import Options

REPEATS = 4.0
AUTO = Literal["auto"]


@dataclass(frozen=True)
class Budget:
    """What a training budget says about a pool.

    Attributes:
        kept: rows to keep.
        rows: rows there are.
        samples_seen: of the training.
        repeats: views per kept sample that were asked for.
        bound: which limit decided: ``none``, ``least`` or ``most``.
    """

    kept: int
    rows: int
    samples_seen: int
    repeats: float
    bound: Literal["none", "least", "most"]

    @property
    def fraction(self) -> float:
        """Share of the rows to keep, 0-1."""
        return self.kept / self.rows if self.rows else 0.0

    def facts(self) -> dict[str, Any]:
        """For the report, strict JSON. ``views``: how often a kept sample is really seen, None when none is kept."""
        views = self.samples_seen / self.kept if self.kept else None
        return {
            "rule": "samples_seen / repeats, clamped",
            "samples_seen": self.samples_seen,
            "repeats": self.repeats,
            "rows": self.rows,
            "kept": self.kept,
            "fraction": self.fraction,
            "bound": self.bound,
            "views": views,
        }


def budget(rows: int, samples_seen: int, repeats: float = REPEATS, least: float = 0.0, most: float = 1.0) -> Budget:
    """How many of `rows` to keep for a training of `samples_seen` samples, rounded down; at least 1 when there are any.

    Args:
        repeats: how often a kept sample should be seen.
        least, most: shares of the rows, 0-1, between which the answer stays.

    Raises:
        ValueError: the arguments make no sense.
    """
    if rows < 0 or samples_seen < 1 or not repeats > 0 or not 0 <= least <= most <= 1:
        raise ValueError(f"no budget: {rows} rows, {samples_seen} seen, {repeats} repeats, {least}-{most} kept")
    wanted = int(samples_seen / repeats)
    low, high = max(int(rows * least), min(rows, 1)), int(rows * most)
    high = max(low, high)
    kept = min(max(wanted, low), high)
    bound = "least" if wanted < low else "most" if wanted > high else "none"
    return Budget(kept, rows, samples_seen, repeats, bound)


class ForTraining(Options):
    """Options of filters that may ask how long the training is. Whoever knows passes it on with `with_budget`."""

    samples_seen: int | None = Field(
        None, ge=1, description="With `auto`: samples that the training sees; default: `pretrain.samples_seen`."
    )

    @property
    def wants_budget(self) -> bool:
        """Whether an option is `auto`; subclasses say."""
        return False

    def with_budget(self, samples_seen: int) -> Self:
        """The same filter for a training of `samples_seen`, if it asked for one and was given no other."""
        if not self.wants_budget or self.samples_seen is not None:
            return self
        return self.model_copy(update={"samples_seen": samples_seen})

    def seen(self) -> int:
        """Samples seen by the training.

        Raises:
            ConfigError: nobody said.
        """
        if self.samples_seen is None:
            kind = getattr(self, "type", "filter")
            raise ConfigError(f"{kind}: `auto` needs a training; give `pretrain.samples_seen` or `samples_seen` here")
        return self.samples_seen


class Budgeted(ForTraining):
    """The options of filters that know `keep: auto`."""

    repeats: float = Field(
        REPEATS, gt=0, description="With `auto`: how often the training should see each kept sample; 3 to 7 are usual."
    )
    least: float = Field(0.0, ge=0, le=1, description="With `auto`: keep at least this share of the samples, 0-1.")
    most: float = Field(1.0, ge=0, le=1, description="With `auto`: keep at most this share of the samples, 0-1.")

    @model_validator(mode="after")
    def _least_below_most(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"`least` ({self.least:g}) is above `most` ({self.most:g}); nothing lies between them")
        return self

    def budget_of(self, rows: int) -> Budget:
        """What `auto` means for a pool of `rows`.

        Raises:
            ConfigError: nobody said how long the training is.
        """
        return budget(rows, self.seen(), self.repeats, self.least, self.most)
