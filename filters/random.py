"""`random`: keep a random sample of exact size, the control that every other subset is compared with.

The rows with the smallest keyed hash of their uid (`draw.py`): exactly as many as asked for, the same ones whatever the
sharding, and nested: a smaller sample with the same seed is part of a larger one.

A control must be like the subset that it is compared with in everything but the choice. `like` takes that subset's
size; `of` says in what:

* ``rows``: as many different samples, each once;
* ``samples``: as many as it has with its repeats, spread evenly: all rows that reach this filter are taken equally
  often, give or take one;
* ``repeats``: as many rows, and the same repeats on them, dealt out at random.

With `per` all that holds within every group of a column (a source, a language) too (`strata.py`). Groups and repeats
are those of the other subset's rows that reach this filter, so it belongs first in its list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..errors import ConfigError, DataError
from .base import FILTERS, Decision, Filter, Part, Pool, Routed
from .draw import Cut, draw, uid_hash
from .strata import Quota, Stratum, assign_times, strata


@dataclass(frozen=True)
class Lot:
    """The outcome of the draw.

    Attributes:
        cut: last row drawn; None when none was.
        count: rows drawn.
        rows: rows that could be.
        seed: the run's seed.
        base: how often every row is taken besides.
        routed: ``times`` by row, instead of a cut, when groups or repeats are those of another subset.
        groups: rows drawn and rows that could be, by group.
    """

    cut: Cut | None
    count: int
    rows: int
    seed: int
    base: int = 0
    routed: Routed | None = None
    groups: dict[str | None, tuple[int, int]] | None = None


@FILTERS.register
class Random(Filter):
    """Keep a random sample: a count, a share, or as many as another subset keeps."""

    type: Literal["random"] = "random"
    count: int | None = Field(None, ge=0, description="How many samples to keep.")
    fraction: float | None = Field(None, ge=0, le=1, description="Share of the samples to keep, 0-1, rounded down.")
    like: str | None = Field(None, description="Name of a subset; keep as many samples as it does.")
    of: Literal["rows", "samples", "repeats"] = Field(
        "rows",
        description="What is like the other subset: the different rows; the samples, with its repeats, spread evenly; "
        "or the rows and their repeats.",
    )
    per: str | None = Field(None, description="Column of groups; `like` or `fraction` then hold within each group.")
    seed: int = Field(0, ge=0, description="Another number draws other samples, independently of the run's seed.")

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        given = [name for name in ("count", "fraction", "like") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"random needs exactly one of `count`, `fraction` and `like`, not {given or 'none'}")
        if self.of != "rows" and self.like is None:
            raise ValueError(f"`of: {self.of}` says what is like another subset; name one with `like`")
        if self.per is not None and self.count is not None:
            raise ValueError("`per` needs a size that groups can have: `like` or `fraction`, not `count`")
        return self

    @property
    def _dealt(self) -> bool:
        """Whether the other subset's rows are looked at, not only its size."""
        return self.per is not None or self.of == "repeats"

    def columns(self) -> list[str]:
        looked_at = [f"subset.{self.like}"] if self.like is not None and self._dealt else []
        return ["uid", *([self.per] if self.per is not None else []), *looked_at]

    def with_count(self, count: int, samples: int | None = None) -> Self:
        """The same draw of that many; how whoever knows the subset named by `like` passes on its size.

        Args:
            count: rows that it keeps.
            samples: the same with repeats; default: none are repeated.
        """
        if self._dealt:
            return self
        size = count if self.of == "rows" or samples is None else samples
        return self.model_copy(update={"count": size, "like": None})

    def fit(self, pool: Pool) -> Lot:
        if self._dealt:
            return self._deal(pool)
        if self.like is not None:
            raise ConfigError(f"random: the size of subset {self.like!r} is not known here; give `count`")
        rows = sum(pool.map(_length))
        count = self.count if self.count is not None else int(rows * (self.fraction or 0.0))
        base = 0
        if count > rows and self.of == "samples" and rows:
            base, count = divmod(count, rows)
        if count > rows:
            raise DataError(f"random: {count} samples asked for, but only {rows} reach this filter")
        drawn = draw(pool, count, pool.seed, self._purpose())
        return Lot(drawn.cut, drawn.count + base * rows, rows, pool.seed, base)

    def _deal(self, pool: Pool) -> Lot:
        found = strata(pool, self.per, f"subset.{self.like}" if self.like is not None else None)
        quotas = {name: self._quota(one) for name, one in found.items()}
        routed = assign_times(pool, self.per, quotas, pool.seed, self._purpose())
        samples = {name: sum(m * rows for m, rows in quota.items()) for name, quota in quotas.items()}
        groups = {name: (samples[name], one.rows) for name, one in found.items()}
        rows = sum(one.rows for one in found.values())
        return Lot(None, sum(samples.values()), rows, pool.seed, 0, routed, groups)

    def _quota(self, group: Stratum) -> Quota:
        if self.like is None:
            return {1: int(group.rows * (self.fraction or 0.0))}
        if self.of == "repeats":
            return group.times
        if self.of == "rows":
            return {1: sum(group.times.values())}
        base, more = divmod(sum(m * rows for m, rows in group.times.items()), group.rows)
        return {base + 1: more, base: group.rows - more}

    def _purpose(self) -> str:
        return f"random/{self.seed}"

    def decide(self, part: Part, state: Lot) -> Decision:
        uids = part.uids()
        hashes = uid_hash(uids, state.seed, self._purpose())
        value = np.ldexp(hashes.astype(np.float64), -64).astype(np.float32)
        if state.routed is not None:
            times = state.routed.of(part).get("times", np.zeros(len(part), np.int32))
            return Decision(times > 0, value, "not_drawn", times)
        drawn = state.cut.includes(part, uids, hashes) if state.cut else np.zeros(len(part), bool)
        if not state.base:
            return Decision(drawn, value, "not_drawn")
        return Decision(np.ones(len(part), bool), value, "not_drawn", (state.base + drawn).astype(np.int32))

    def describe(self, state: Lot) -> dict[str, Any]:
        facts: dict[str, Any] = {"drawn": state.count, "rows": state.rows}
        if self.per is not None and state.groups is not None:
            facts["column"] = self.per
            facts["groups"] = [{"group": n, "drawn": d, "rows": r} for n, (d, r) in state.groups.items()]
        return facts


def _length(part: Part) -> int:
    return len(part)
