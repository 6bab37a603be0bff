"""A suite: features in, metrics out. One protocol of evaluation, and its own options.

A suite never sees the model or an image, only features that were computed once and are shared by all suites
(`EvalContext`); so it costs seconds, and a new one can be run on models that are long gone. Choices (a regularisation,
a k) are made on the train split; the scored split is looked at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import Field

from ...registry import Options, Registry
from ...shards.evalset import EvalSet
from ..features import ClassScores, Features, TextFeatures
from ..metrics import Outcomes

Need = Literal["text", "head"]


@dataclass(frozen=True)
class EvalContext:
    """What a suite may look at.

    Attributes:
        evalset: the set: names of classes and templates.
        features: split name -> its features and labels; computed at most once.
        text: prompts -> features.
        scores: logits of the model's own classifier; None if it has none.
    """

    evalset: EvalSet
    features: Callable[[str], Features]
    text: TextFeatures
    scores: ClassScores | None = None


@dataclass(frozen=True)
class SuiteResult:
    """What a suite found on one set.

    Attributes:
        metrics: by name, fractions 0-1; None where the metric does not exist. Names are those of DataComp and
            CLIP_benchmark where those have one, and unique over suites: ``acc1``, ``lp_acc1``, ``knn_acc1``.
        outcomes: each sample's prediction and rank; per-class tables and confusion follow from it.
        facts: what was chosen and how, strict JSON.
    """

    metrics: dict[str, float | None]
    outcomes: Outcomes
    facts: dict[str, Any] = field(default_factory=dict)


class Suite(Options):
    """Base of all suites. Subclasses are registered in `SUITES` and are their own options.

    Attributes:
        version: bump when the same options would give other numbers.
        task: CLIP_benchmark's name of the protocol.
        main_metric: the metric that leaderboards show.
        needs: what the model must have beside an image tower: ``text`` (a text tower), ``head`` (a classifier).
    """

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Need, ...]] = ()
    task: ClassVar[str]
    main_metric: ClassVar[str]

    type: str
    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        description="What results are called; default: the type. Needed when a type is used twice.",
    )
    split: str = Field(default="test", description="Split that is scored.")

    @property
    def label(self) -> str:
        """What its results are called."""
        return self.name or self.type

    def splits(self) -> list[str]:
        """Splits that a set must have."""
        return [self.split]

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
