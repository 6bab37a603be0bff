"""A suite: features in, metrics out. One protocol of evaluation, and its own options.

A suite never sees the model or an image, only features that were computed once and are shared by all suites
(`EvalContext`); so it costs seconds, and a new one can be run on models that are long gone. (Fine-tuning is the
exception: it asks for `EvalContext.model`.) Choices (a regularisation, a k) are made on the train split; the scored
split is looked at once.

A suite measures the kinds of sets that it is for (`kinds`) and passes over the others; `evaluate.open_sets` refuses a
suite that finds no set and a set that no suite measures, so nothing is left out without a word.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...errors import ConfigError
from ...registry import Options, Registry
from ...shards.evalsets.base import EvalSet, EvalSplit, Kind
from ..embedding.features import ClassScores, Features, TextFeatures
from ..metrics.outcomes import SampleOutcomes
from .questions import has_questions

if TYPE_CHECKING:
    from ...pretrain.encoders.encoder import Encoder

Need = Literal["text", "head"]
Splits = Callable[[str], EvalSplit]


@dataclass(frozen=True)
class EvalContext:
    """What a suite may look at.

    Attributes:
        evalset: the set: names of classes and templates.
        split: split name -> its annotations.
        features: split name -> its features and labels; computed at most once. Of a split whose suites look at some
            rows only (`Suite.rows`), the others are NaN.
        text: prompts -> features.
        scores: logits of the model's own classifier; None if it has none.
        model: the model itself, for suites that train it further; they must leave it as it was.
    """

    evalset: EvalSet
    split: Splits
    features: Callable[[str], Features]
    text: TextFeatures
    scores: ClassScores | None = None
    model: Encoder | None = None


@dataclass(frozen=True)
class SuiteResult:
    """What a suite found on one set.

    Attributes:
        metrics: by name, fractions 0-1; None where the metric does not exist. Names are those of DataComp and
            CLIP_benchmark where those have one, and unique over suites: ``acc1``, ``lp_acc1``, ``knn_acc1``.
        outcomes: each sample's prediction and rank; per-class tables and confusion follow from it.
        facts: what was chosen and how, strict JSON.
        tables: tables of its own for ``results.json``, strict JSON, beside those of the outcomes.
        chance: what a guess would reach in the main metric; None = not known.
        interval: 95 % interval of the share that is right, where it is not Wilson's over independent samples.
    """

    metrics: dict[str, float | None]
    outcomes: SampleOutcomes
    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    chance: float | None = None
    interval: tuple[float, float] | None = None


class Suite(Options):
    """Base of all suites. Subclasses are registered in `SUITES` and are their own options.

    Attributes:
        version: bump when the same options would give other numbers.
        kinds: kinds of sets that it measures.
        task: CLIP_benchmark's name of the protocol, or ours where it has none.
        main_metric: the metric that leaderboards show, unless a task has one of its own (`main_metric_of`).
        needs: what the model must have beside an image tower: ``text`` (a text tower), ``head`` (a classifier).
        asks_questions: whether it is for classes that answer several questions, and for no others (`questions.py`).
    """

    version: ClassVar[int] = 1
    kinds: ClassVar[tuple[Kind, ...]] = ("classification",)
    needs: ClassVar[tuple[Need, ...]] = ()
    asks_questions: ClassVar[bool] = False
    task: ClassVar[str]
    main_metric: ClassVar[str | None]

    type: str
    name: str | None = Field(
        default=None,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        description="What results are called; default: the type. Needed when a type is used twice.",
    )
    split: str = Field(default="test", description="Split that is scored.")
    sets: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Names of the sets to measure (`*` stands for anything); default: all of its kind.",
    )

    @property
    def label(self) -> str:
        """What its results are called."""
        return self.name or self.type

    def measures(self, evalset: EvalSet) -> bool:
        """Whether it is for this set."""
        if evalset.kind not in self.kinds or has_questions(evalset) != self.asks_questions:
            return False
        return self.sets is None or any(fnmatchcase(evalset.name, pattern) for pattern in self.sets)

    def splits(self) -> list[str]:
        """Splits that a set must have."""
        return [self.split]

    def splits_of(self, evalset: EvalSet) -> list[str]:
        """Splits that this set must have; by default the same for all."""
        return self.splits()

    def files(self) -> list[str]:
        """Paths and patterns of what results depend on beside the sets; its content is part of what was asked."""
        return []

    def paths(self) -> set[str]:
        """Options that are nothing but places of `files`."""
        return set()

    def split_of(self, evalset: EvalSet) -> str:
        """The split of this set that is scored."""
        return self.split

    def check_sets(self, evalsets: Sequence[EvalSet]) -> None:
        """Raise ConfigError if what it was told about sets fits none of those that it will measure."""
        for pattern in self.sets or ():
            if not any(fnmatchcase(evalset.name, pattern) for evalset in evalsets):
                names = ", ".join(evalset.name for evalset in evalsets) or "none"
                raise ConfigError(
                    f"`sets` of the suite {self.label!r} names {pattern!r}, and it measures no such set, only {names}"
                )

    def check_splits(self, evalset: EvalSet, splits: Mapping[str, EvalSplit]) -> None:
        """Raise what `evaluate` would about the annotations of a set, before a model is loaded.

        Args:
            splits: of `splits_of`, by name.
        """
        if evalset.kind == "classification":
            for split in splits.values():
                split.labels  # noqa: B018 - raises where there are none

    def check_set(self, evalset: EvalSet, classes: tuple[str, ...]) -> None:
        """Raise what `evaluate` would, as far as it can be told without a feature.

        Args:
            classes: names of the model's own classes; empty without a head.
        """

    def templates_for(self, evalset: EvalSet) -> tuple[str, ...]:
        """Prompt templates that the numbers depend on; empty for suites without prompts.

        Raises:
            DataError: the suite needs templates and there are none.
        """
        return ()

    def classnames_for(self, evalset: EvalSet) -> tuple[str, ...]:
        """Class names that the numbers depend on, in label order."""
        return evalset.classnames

    def told(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Its options as results repeat them, strict JSON: what numbers depend on, and no path.

        Args:
            facts: of the result.
        """
        return self.model_dump(mode="json")

    def texts(self, evalset: EvalSet, split: Splits) -> Iterable[str]:
        """Every text that it will ask features of: those of all suites and sets are encoded together, once."""
        return ()

    def rows(self, evalset: EvalSet, split: EvalSplit) -> np.ndarray | None:
        """Rows ``(m,) int64``, ascending, of a split that it looks at; None = all."""
        return None

    def main_metric_of(self, evalset: EvalSet) -> str | None:
        """The metric that leaderboards show for this set; None where no single one says it all (fairness)."""
        return self.main_metric

    @abstractmethod
    def evaluate(self, context: EvalContext) -> SuiteResult:
        """Score the model on one set.

        Raises:
            DataError: the set lacks what the protocol needs.
        """


class ProbeSuite(Suite):
    """Base of suites that learn from a train split of the set."""

    train_split: str = Field(default="train", description="Split that is learned from; every choice is made on it.")

    def splits(self) -> list[str]:
        return [self.train_split, self.split]


SUITES: Registry[Suite] = Registry("suite")
