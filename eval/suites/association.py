"""`association`: which pictures belong to a cue? (WinoGAViL: Bitton et al., NeurIPS 2022.)

People gave a cue for some of 5, 6, 10 or 12 pictures. As in DataComp's evaluation the prompt is "A cue" or "An cue" (by
the first letter, a vowel or not), as many pictures are taken as were meant, the nearest ones, and the score of an
instance is Jaccard's: shared over all of the taken and the meant. ``jaccard_score_10-12`` is the mean over instances of
10 or 12 candidates, and so on; None where there is no such instance. Of equally near pictures the earlier are taken.

Each distinct cue and each picture is encoded once, where one instance at a time takes DataComp 18 minutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import comb
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from ...errors import DataError
from ...shards.evalsets.base import Association as Question
from ...shards.evalsets.base import EvalSet, EvalSplit, Kind
from ..metrics.outcomes import SampleOutcomes, small
from .base import SUITES, EvalContext, Need, Splits, Suite, SuiteResult

SIZES: dict[str, tuple[int, ...]] = {"5": (5,), "6": (6,), "10": (10,), "12": (12,), "5-6": (5, 6), "10-12": (10, 12)}
AT_ONCE = 256  # instances
SHOWN = 12


@SUITES.register
class Association(Suite):
    """Choose the pictures that people associate with a cue."""

    kinds: ClassVar[tuple[Kind, ...]] = ("association",)
    task: ClassVar[str] = "winogavil"
    main_metric: ClassVar[str] = "jaccard_score_10-12"
    needs: ClassVar[tuple[Need, ...]] = ("text",)

    type: Literal["association"] = "association"

    def check_splits(self, evalset: EvalSet, splits: Mapping[str, EvalSplit]) -> None:
        questions_of(splits[self.split])

    def texts(self, evalset: EvalSet, split: Splits) -> list[str]:
        return [cue_prompt(question.cue) for question in questions_of(split(self.split))]

    def evaluate(self, context: EvalContext) -> SuiteResult:
        questions = questions_of(context.split(self.split))
        text = context.text([cue_prompt(question.cue) for question in questions])
        found = associate(context.features(self.split).image, text, questions)
        jaccard, sizes = found.jaccard, np.array([len(question.candidates) for question in questions])
        metrics: dict[str, float | None] = {"avg_jaccard_score": float(jaccard.mean())}
        for name, wanted in SIZES.items():
            there = np.isin(sizes, wanted)
            metrics[f"jaccard_score_{name}"] = float(jaccard[there].mean()) if there.any() else None
        main = [(len(q.candidates), len(q.right)) for q in questions if len(q.candidates) in SIZES["10-12"]]
        chance = float(sum((expected_jaccard(*one) for one in main), Fraction(0)) / len(main)) if main else None
        facts = {"candidates": {str(size): count for size, count in sorted(Counter(sizes.tolist()).items())}}
        return SuiteResult(metrics, found, facts, chance=chance)


def cue_prompt(cue: str) -> str:
    """``A`` or ``An`` before the cue, by its first letter alone."""
    return f"{'An' if cue[:1].lower() in tuple('aeiou') else 'A'} {cue}"


def questions_of(split: EvalSplit) -> Sequence[Question]:
    """The instances of a split.

    Raises:
        DataError: it has none, or one has nothing to choose, a picture twice, or a picture that is not there.
    """
    if not split.associations:
        raise DataError(f"{split.where}: there are no cues with pictures to choose from")
    for one in split.associations:
        where = f"{split.where}: instance {one.key} (cue {one.cue!r})"
        if not one.right or not set(one.right) <= set(one.candidates):
            raise DataError(f"{where}: the right pictures must be one or more of its candidates")
        if len(set(one.candidates)) < len(one.candidates) or len(set(one.right)) < len(one.right):
            raise DataError(f"{where} names a picture twice")
        if not all(0 <= number < len(split) for number in one.candidates):
            raise DataError(f"{where} names a picture that is not in the split")
    return split.associations


def associate(image: np.ndarray, text: np.ndarray, questions: Sequence[Question]) -> AssociationOutcomes:
    """Choose for each cue.

    Args:
        image: ``(n, d) float32`` features of the split's pictures.
        text: ``(questions, d) float32``.
    """
    by_size: dict[int, list[int]] = {}
    for number, question in enumerate(questions):
        by_size.setdefault(len(question.candidates), []).append(number)
    chosen: list[tuple[int, ...]] = [()] * len(questions)
    for numbers in by_size.values():
        for start in range(0, len(numbers), AT_ONCE):
            part = numbers[start : start + AT_ONCE]
            candidates = np.array([questions[i].candidates for i in part])
            scores = (image[candidates] @ text[part][:, :, None])[:, :, 0]
            if np.isnan(scores).any():
                raise DataError("a score is NaN; the model's embeddings are broken")
            order = np.take_along_axis(candidates, np.argsort(-scores, 1, "stable"), 1).tolist()
            for i, nearest in zip(part, order, strict=True):
                chosen[i] = tuple(nearest[: len(questions[i].right)])
    return AssociationOutcomes(questions, tuple(chosen))


@cache
def expected_jaccard(candidates: int, right: int) -> Fraction:
    """Mean score of a random choice of `right` among `candidates`: over the hypergeometric number of hits."""
    ways = ((hits, comb(right, hits) * comb(candidates - right, right - hits)) for hits in range(right + 1))
    return sum((Fraction(count * hits, 2 * right - hits) for hits, count in ways), Fraction(0)) / comb(
        candidates, right
    )


@dataclass(frozen=True)
class AssociationOutcomes(SampleOutcomes):
    """One row per instance.

    Attributes:
        questions: the instances.
        chosen: numbers of the pictures taken for each, nearest first.
    """

    questions: Sequence[Question]
    chosen: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def hits(self) -> np.ndarray:
        """``(n,) int64``: right ones among the chosen."""
        return np.array([len({*c} & {*q.right}) for c, q in zip(self.chosen, self.questions, strict=True)], np.int64)

    @property
    def jaccard(self) -> np.ndarray:
        """``(n,) float64``; as many are chosen as are right, so the union has 2 n - hits."""
        hits = self.hits
        return hits / (2 * np.array([len(question.right) for question in self.questions]) - hits)

    @property
    def correct(self) -> np.ndarray:
        """All of them right."""
        return self.hits == [len(question.right) for question in self.questions]

    def table(self, split: EvalSplit) -> pa.Table:
        """Columns beside key and correct: ``jaccard``, ``candidates`` (how many), ``chosen`` (picture numbers)."""
        return pa.table(
            {
                "key": pa.array([question.key for question in self.questions], pa.string()),
                "correct": pa.array(self.correct),
                "jaccard": pa.array(self.jaccard),
                "candidates": small(np.array([len(question.candidates) for question in self.questions]), 1 << 15),
                "chosen": pa.array(self.chosen, pa.list_(pa.uint32())),
            }
        )

    def tables(self, evalset: EvalSet, split: EvalSplit) -> dict[str, list[dict[str, object]]]:
        """``associations``: the instances of the lowest and of the highest score, in full."""
        order = np.argsort(self.jaccard, kind="stable").tolist()
        some = dict.fromkeys(order[:SHOWN] + order[::-1][:SHOWN])
        jaccard = self.jaccard
        return {
            "associations": [
                {
                    "key": self.questions[i].key,
                    "cue": self.questions[i].cue,
                    "candidates": [split.keys[j] for j in self.questions[i].candidates],
                    "right": [split.keys[j] for j in self.questions[i].right],
                    "chosen": [split.keys[j] for j in self.chosen[i]],
                    "jaccard": float(jaccard[i]),
                }
                for i in some
            ]
        }
