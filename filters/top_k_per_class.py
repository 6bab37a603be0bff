"""`top_k_per_class`: of every class the K samples that a teacher is surest of (Yalniz et al., arXiv 1905.00546).

A student is then pre-trained on a set in which every class has its say. The teacher's word comes as the columns of
`class_prompts`: ``classes_of`` names the score, whose top class and its probability are read; or ``probabilities``
names one column a class, and a sample takes part in its ``classes_per_sample`` best classes (published: 10 of 1,000).
A sample that several classes choose is kept once, or, with `repeat`, as often as it was chosen.

Equal probabilities go by uid, as everywhere. The K best are found by counting, not by sorting (`group_cuts.py`), so a
class that is half the pool is no problem; with `probabilities`, that is three passes over small columns for each class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from .base import FILTERS, Decision, Filter, Part, Pool, numbers
from .group_cuts import Cuts, Share, fit_cuts, tell
from .group_ranking import Ranking
from .quantile import to_bits


@dataclass(frozen=True)
class OneClass(Ranking):
    """Rows ranked by the probability of one class, among those that have it among their best.

    Attributes:
        columns_of: probability columns of all classes.
        place: of this class among them.
        best: classes that a sample takes part in.
    """

    columns_of: tuple[str, ...] = ()
    place: int = 0
    best: int = 1

    def bits(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        values, present = np.zeros(len(part), np.float32), np.zeros(len(part), bool)
        if len(part):
            table = probabilities(part, self.columns_of)
            present = among_best(table, self.place, self.best)
            values = np.where(present, table[:, self.place], np.float32(0))
        return to_bits(values), present


@dataclass(frozen=True)
class Chosen:
    """Where each class is cut.

    Attributes:
        cuts: of every class: one for all (`classes_of`), or one a column.
        classes: facts of each by name.
    """

    cuts: tuple[Cuts, ...]
    classes: dict[str, dict[str, Any]]


@FILTERS.register
class TopKPerClass(Filter):
    """Keep the samples of every class that a classifier is surest of."""

    type: Literal["top_k_per_class"] = "top_k_per_class"
    classes_of: str | None = Field(
        None, description="Score of type `class_prompts`: its column of top classes, and <name>_probability."
    )
    probabilities: list[str] = Field(
        default_factory=list, description="Instead: a probability column for every class, <name>_p_<class>."
    )
    per_class: int = Field(ge=1, description="Samples that every class keeps, at most; 16000 in the paper.")
    classes_per_sample: int = Field(
        10, ge=1, description="With `probabilities`: a sample takes part in so many of its best classes."
    )
    repeat: bool = Field(False, description="Keep a sample as often as classes chose it, instead of once.")

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.classes_of is None) == (not self.probabilities):
            raise ValueError("top_k_per_class needs exactly one of `classes_of` and `probabilities`")
        if len(set(self.probabilities)) < len(self.probabilities):
            raise ValueError("a column of `probabilities` is there twice")
        return self

    def columns(self) -> list[str]:
        read = [self.classes_of, f"{self.classes_of}_probability"] if self.classes_of else self.probabilities
        return ["uid", *read]

    def fit(self, pool: Pool) -> Chosen:
        share = Share(count=self.per_class)
        if self.classes_of is not None:
            cuts = fit_cuts(pool, Ranking(f"{self.classes_of}_probability", self.classes_of), share)
            return Chosen((cuts,), tell(pool, cuts))
        columns = tuple(self.probabilities)
        every = tuple(
            fit_cuts(pool, OneClass(name, columns_of=columns, place=i, best=self.classes_per_sample), share)
            for i, name in enumerate(columns)
        )
        told = {name: tell(pool, cuts).get("", {}) for name, cuts in zip(columns, every, strict=True)}
        return Chosen(every, told)

    def decide(self, part: Part, state: Chosen) -> Decision:
        if not len(part):
            return Decision(np.zeros(0, bool), np.zeros(0, np.float32), "no_class")
        times = np.zeros(len(part), np.int32)
        for cuts in state.cuts:
            times += cuts.keep(part)[0]
        if self.classes_of is not None:
            value = numbers(part, f"{self.classes_of}_probability")
            known = ~np.isnan(value) & part.arrow(self.classes_of).is_valid().to_numpy().astype(bool)
        else:
            table = probabilities(part, tuple(self.probabilities))
            known = ~np.isnan(table).all(axis=1)
            value = np.where(known, np.nan_to_num(table, nan=-np.inf).max(axis=1), np.float32(np.nan))
        reason = np.where(known, "not_among_top", "no_class")
        repeats = np.maximum(times, 1) if self.repeat else None
        return Decision(times > 0, value.astype(np.float32), reason, repeats)

    def describe(self, state: Chosen) -> dict[str, Any]:
        short = sum(fact.get("scored", 0) < self.per_class for fact in state.classes.values())
        return {"per_class": self.per_class, "classes": state.classes, "classes_short": short}


def probabilities(part: Part, columns: tuple[str, ...]) -> np.ndarray:
    """``(n, classes) float32``; NaN where there is none."""
    return np.stack([numbers(part, column) for column in columns], axis=1)


def among_best(table: np.ndarray, place: int, best: int) -> np.ndarray:
    """``(n,) bool``: whether class `place` is among the `best` of a row; of equal ones the first classes are."""
    mine = table[:, place : place + 1]
    with np.errstate(invalid="ignore"):
        before = (table > mine).sum(axis=1) + (table[:, :place] == mine).sum(axis=1)
    return ~np.isnan(mine[:, 0]) & (before < best)
