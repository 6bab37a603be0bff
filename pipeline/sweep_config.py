"""`pretrain.sweep`: which trainings make the scaling curves of a run.

A point is one training (all its seeds) of one subset, cut to a size, with a budget and a model. Sizes are nested: every
smaller one is part of every larger one. The options say which points there are; importing this is cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field, model_validator

from ..registry import Options

Size = Annotated[float, Field(gt=0)]
WHOLE = 1.0
SWEEP = "sweep"  # names of a sweep's stages, and of their roles in the report, begin with it


@dataclass(frozen=True)
class SweepPoint:
    """One training of the sweep.

    Attributes:
        subset: name of the strategy.
        size: 0-1 is a share of the subset's rows, more is a number of rows.
        samples_seen: its budget.
        model: as in `pretrain.model`.
        base: the budget that it is a share of; equal to `samples_seen` unless epochs are equal.
        name: of the point within its subset, such as ``0.25/seen-20000``; says what the sweep varies.
    """

    subset: str
    size: float
    samples_seen: int
    model: str
    base: int
    name: str = ""

    @property
    def whole(self) -> bool:
        """Whether it is the subset as it is."""
        return self.size == WHOLE

    @property
    def share(self) -> float | None:
        """The share of the subset that was asked for; None of a number of rows."""
        return self.size if self.size <= WHOLE else None

    @property
    def count(self) -> int | None:
        """The number of rows that was asked for; None of a share."""
        return None if self.size <= WHOLE else int(self.size)


class SweepConfig(Options):
    """Train on nested sizes of each subset, at several budgets, and fit how the error falls: see `docs/scaling.md`."""

    subset_sizes: list[Size] | None = Field(
        None,
        min_length=1,
        description="Sizes of each subset: up to 1 a share of its rows, above 1 a number of rows (repeats come along). "
        "Each is part of the next larger one.",
    )
    samples_seen: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, min_length=1, description="Training budgets in samples; default: `pretrain.samples_seen` alone."
    )
    models: list[str] | None = Field(None, min_length=1, description="Models; default: `pretrain.model` alone.")
    equal_epochs: bool = Field(
        False,
        description="Give a share of the data the same share of each budget, so that all sizes see their samples "
        "equally often; default: all sizes have the whole budget, and the smaller repeat more.",
    )
    subsets: list[str] | None = Field(None, min_length=1, description="Subsets; default: all that are trained on.")
    seed: int = Field(0, ge=0, description="Another number draws other samples into the smaller sizes.")

    @model_validator(mode="after")
    def _makes_points(self) -> SweepConfig:
        if not (self.subset_sizes or self.samples_seen or self.models):
            raise ValueError("a sweep needs `subset_sizes`, `samples_seen` or `models`")
        for size in self.subset_sizes or []:
            if size > WHOLE and size != int(size):
                raise ValueError(f"subset_sizes: {size:g} is neither a share (up to 1) nor a whole number of rows")
            if size > WHOLE and self.equal_epochs:
                raise ValueError(f"equal_epochs: {size:g} is a number of rows; the budget follows shares only")
        for key in ("subset_sizes", "samples_seen", "models", "subsets"):
            values: Sequence[object] = getattr(self, key) or []
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: a value is named twice")
        return self

    def points(self, subset: str, samples_seen: int, model: str) -> list[SweepPoint]:
        """All points of one subset, small ones first, each training once.

        Args:
            samples_seen, model: of the main training, for what the sweep does not vary.
        """
        found: dict[SweepPoint, SweepPoint] = {}
        for which in self.models or [model]:
            for budget in sorted(self.samples_seen or [samples_seen]):
                for size in sorted(self.subset_sizes or [WHOLE], key=lambda s: (s <= WHOLE, s)):
                    seen = max(1, round(budget * size)) if self.equal_epochs else budget
                    point = SweepPoint(subset, float(size), seen, which, budget)
                    found.setdefault(point, replace(point, name=self._name(point)))
        return list(found.values())

    def _name(self, point: SweepPoint) -> str:
        parts = []
        if self.subset_sizes:
            parts.append(_size_name(point.size))
        if self.samples_seen:
            parts.append(f"seen-{point.samples_seen}")
        if self.models:
            parts.append(f"model-{self.models.index(point.model)}")
        return "/".join(parts)


def _size_name(size: float) -> str:
    """``0.25`` of a share, ``5000`` of a number of rows, ``1`` of all."""
    return str(int(size)) if size >= WHOLE else repr(size)


__all__ = ["SWEEP", "WHOLE", "SweepConfig", "SweepPoint"]
