"""`compositional`: does the model tell apart captions of the same words, and pictures that differ in one thing?

Each instance is closed: a few pictures and a few captions, caption i right for picture i (Winoground: two and two,
Thrush et al., CVPR 2022; SugarCrepe: one and two, Hsieh et al., NeurIPS 2023). As in CLIP_benchmark:

    text_acc    each picture's nearest caption is its own
    image_acc   each caption's nearest picture is its own
    acc         both

over the first min(pictures, captions) of each. With a single picture `image_acc` is 1 and says nothing. "Nearest" is
strictly nearest: a tie is wrong, as in Winoground's paper; where CLIP_benchmark's argmax takes the first of equals,
and SugarCrepe's right caption always is the first, a model that sees no difference would be right everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import factorial
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from ...errors import DataError
from ...shards.evalsets.base import EvalSet, EvalSplit, Instance, Kind
from ..metrics.outcomes import SampleOutcomes
from .base import SUITES, EvalContext, Need, Splits, Suite, SuiteResult

AT_ONCE = 1024  # instances


@SUITES.register
class Compositional(Suite):
    """Match a few captions with a few pictures, per instance."""

    kinds: ClassVar[tuple[Kind, ...]] = ("compositional",)
    task: ClassVar[str] = "image_caption_selection"
    main_metric: ClassVar[str] = "acc"
    needs: ClassVar[tuple[Need, ...]] = ("text",)

    type: Literal["compositional"] = "compositional"

    def check_splits(self, evalset: EvalSet, splits: Mapping[str, EvalSplit]) -> None:
        instances_of(splits[self.split])

    def texts(self, evalset: EvalSet, split: Splits) -> list[str]:
        return [caption for instance in instances_of(split(self.split)) for caption in instance.captions]

    def evaluate(self, context: EvalContext) -> SuiteResult:
        instances = instances_of(context.split(self.split))
        image = context.features(self.split).image
        text = context.text([caption for instance in instances for caption in instance.captions])
        found = match(image, text, instances)
        metrics: dict[str, float | None] = {
            "image_acc": float(found.image_right.mean()),
            "text_acc": float(found.text_right.mean()),
            "acc": float(found.correct.mean()),
        }
        shapes = Counter((len(i.images), len(i.captions)) for i in instances)
        guess = sum((count * chance_of_both(*shape) for shape, count in shapes.items()), Fraction(0)) / len(instances)
        facts = {"shapes": [[*shape, count] for shape, count in sorted(shapes.items())]}
        return SuiteResult(metrics, found, facts, chance=float(guess))


def instances_of(split: EvalSplit) -> Sequence[Instance]:
    """The instances of a split.

    Raises:
        DataError: it has none, or one has no picture, no caption, or a picture that is not there.
    """
    if not split.instances:
        raise DataError(f"{split.where}: there are no instances of pictures and captions to match")
    for instance in split.instances:
        if not instance.images or not instance.captions:
            what = "caption" if instance.images else "picture"
            raise DataError(f"{split.where}: instance {instance.key} has no {what}")
        if not all(0 <= number < len(split) for number in instance.images):
            raise DataError(f"{split.where}: instance {instance.key} names a picture that is not in the split")
    return split.instances


def match(image: np.ndarray, text: np.ndarray, instances: Sequence[Instance]) -> CompositionalOutcomes:
    """Score each instance.

    Args:
        image: ``(n, d) float32`` features of the split's pictures.
        text: ``(t, d) float32`` features of all captions, instance after instance.
    """
    sizes = np.array([len(instance.captions) for instance in instances])
    starts = np.cumsum(sizes) - sizes
    by_shape: dict[tuple[int, int], list[int]] = {}
    for number, instance in enumerate(instances):
        by_shape.setdefault((len(instance.images), len(instance.captions)), []).append(number)
    text_right, image_right = np.zeros(len(instances), bool), np.zeros(len(instances), bool)
    for (_, captions), numbers in by_shape.items():
        for start in range(0, len(numbers), AT_ONCE):
            part = np.array(numbers[start : start + AT_ONCE])
            pictures = image[np.array([instances[i].images for i in part.tolist()])]  # (b, pictures, d)
            scores = pictures @ text[starts[part, None] + np.arange(captions)].transpose(0, 2, 1)
            text_right[part], image_right[part] = _own_is_nearest(scores), _own_is_nearest(scores.transpose(0, 2, 1))
    return CompositionalOutcomes(tuple(instance.key for instance in instances), image_right, text_right)


def _own_is_nearest(scores: np.ndarray) -> np.ndarray:
    """``(b,) bool``: in each of the first min(q, c) rows of ``(b, q, c)`` the diagonal is above all others."""
    if np.isnan(scores).any():
        raise DataError("a score is NaN; the model's embeddings are broken")
    own = np.arange(min(scores.shape[1:]))
    mine = scores[:, own, own]
    others = scores[:, own].copy()
    others[:, own, own] = -np.inf
    return (mine > others.max(2)).all(1)


def chance_of_both(pictures: int, captions: int) -> Fraction:
    """Probability that random scores match an instance both ways.

    With m = min(pictures, captions), e the other's surplus and uniform scores, given the sorted scores
    ``x_1 < ... < x_m`` of the right pairs: a wrong pair of two of them must lie below the smaller one, which leaves
    ``x_k ** (2 (m - k))`` for the k-th, and its e surplus pairs below itself, ``x_k ** e``. The integral over
    ``x_1 < ... < x_m``, times m!, is ``m! / prod_k sum_(j <= k) (2 (m - j) + e + 1)``; Winoground's 2 x 2 gives 1/6.
    """
    m, surplus = min(pictures, captions), abs(pictures - captions)
    found, power = Fraction(factorial(m)), 0
    for k in range(1, m + 1):
        power += 2 * (m - k) + surplus + 1
        found /= power
    return found


@dataclass(frozen=True)
class CompositionalOutcomes(SampleOutcomes):
    """One row per instance.

    Attributes:
        keys: of the instances.
        image_right, text_right: ``(n,) bool``, see the module.
    """

    keys: tuple[str, ...]
    image_right: np.ndarray
    text_right: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def correct(self) -> np.ndarray:
        return self.image_right & self.text_right

    def table(self, split: EvalSplit) -> pa.Table:
        return pa.table(
            {
                "key": pa.array(self.keys, pa.string()),
                "correct": pa.array(self.correct),
                "image_correct": pa.array(self.image_right),
                "text_correct": pa.array(self.text_right),
            }
        )
