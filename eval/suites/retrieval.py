"""`retrieval`: find the picture of a caption, and a caption of a picture, among all of the set.

CLIP_benchmark's rule: ``image_retrieval_recall@k`` is the share of captions whose picture is among the k nearest
pictures, ``text_retrieval_recall@k`` the share of pictures that have at least one of their captions among the k nearest
captions; ``mean_recall@1`` is the mean of the two at k = 1. A k beyond the number of candidates finds all. Captions are
taken as they are, whatever they hold. Ties: `retrieval_ranks.py`.

Facts hold open_clip's mean and median ranks, counted from 1; the median is the lower whole number (floor + 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...errors import DataError
from ...shards.evalsets.base import Captions, EvalSet, EvalSplit, Kind
from ..metrics.outcomes import SampleOutcomes, small
from ..metrics.retrieval_ranks import RetrievalRanks, retrieval_ranks
from .base import SUITES, EvalContext, Need, Splits, Suite, SuiteResult

EXAMPLES = 12
SHOWN_CAPTIONS = 5


@SUITES.register
class Retrieval(Suite):
    """Rank all pictures for each caption and all captions for each picture."""

    kinds: ClassVar[tuple[Kind, ...]] = ("retrieval",)
    task: ClassVar[str] = "zeroshot_retrieval"
    main_metric: ClassVar[str] = "mean_recall@1"
    needs: ClassVar[tuple[Need, ...]] = ("text",)

    type: Literal["retrieval"] = "retrieval"
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 5, 10), min_length=1, description="How many of the nearest count as found; a recall for each."
    )

    def check_splits(self, evalset: EvalSet, splits: Mapping[str, EvalSplit]) -> None:
        captions_of(splits[self.split])

    def texts(self, evalset: EvalSet, split: Splits) -> tuple[str, ...]:
        return captions_of(split(self.split)).texts

    def evaluate(self, context: EvalContext) -> SuiteResult:
        split = context.split(self.split)
        captions = captions_of(split)
        image = context.features(self.split).image
        ranks = retrieval_ranks(image, context.text(captions.texts), captions.image)
        metrics: dict[str, float | None] = {}
        for k in self.k:
            metrics[f"image_retrieval_recall@{k}"] = float(np.mean(ranks.image < k))
            metrics[f"text_retrieval_recall@{k}"] = float(np.mean(ranks.text < k))
        metrics["mean_recall@1"] = float(np.mean(ranks.image < 1) + np.mean(ranks.text < 1)) / 2
        facts = {
            "images": len(image),
            "captions": len(captions.texts),
            **_rank_facts("image_to_text", ranks.text),
            **_rank_facts("text_to_image", ranks.image),
        }
        # a guess finds the picture with 1 / n; and one of a picture's c captions among t with c / t, on average 1 / n
        return SuiteResult(metrics, RetrievalOutcomes(ranks, captions), facts, chance=1 / len(image))


def captions_of(split: EvalSplit) -> Captions:
    """The captions of a split.

    Raises:
        DataError: it has none, they are not sorted by picture, or a picture has none.
    """
    captions = split.captions
    if captions is None or not captions.texts:
        raise DataError(f"{split.where}: there are no captions to retrieve")
    if len(captions.texts) != len(captions.image) or (np.diff(captions.image) < 0).any():
        raise DataError(f"{split.where}: captions are not sorted by picture, with one picture each")
    there = np.zeros(len(split), bool)
    there[captions.image] = True
    if not there.all():
        raise DataError(
            f"{split.where}: picture {split.keys[int(np.argmin(there))]} has no caption "
            f"({int((~there).sum())} of {len(split)} have none); leave it out of the set, or give it one"
        )
    return captions


def _rank_facts(name: str, rank: np.ndarray) -> dict[str, float | int]:
    return {f"{name}_mean_rank": float(rank.mean()) + 1, f"{name}_median_rank": int(np.floor(np.median(rank))) + 1}


@dataclass(frozen=True)
class RetrievalOutcomes(SampleOutcomes):
    """One row per query: first all captions (which search pictures), then all pictures (which search captions).

    Attributes:
        ranks: what was found.
        captions: of the split.
    """

    ranks: RetrievalRanks
    captions: Captions

    def __len__(self) -> int:
        return len(self.ranks.image) + len(self.ranks.text)

    @property
    def correct(self) -> np.ndarray:
        return np.concatenate([self.ranks.image, self.ranks.text]) == 0

    def table(self, split: EvalSplit) -> pa.Table:
        """Columns: ``key`` (of a picture; of its m-th caption ``key#m``), ``direction`` (what is searched: image or
        text), ``rank`` (0 = best), ``correct``, ``owner`` (number of the query's picture: rows of one picture are no
        independent samples), ``retrieved`` (numbers of the pictures or captions found, best first)."""
        ranks, owner = self.ranks, self.captions.image
        texts, pictures = len(ranks.image), len(ranks.text)
        first = np.searchsorted(owner, owner)
        keys = [
            f"{split.keys[i]}#{m}" for i, m in zip(owner.tolist(), (np.arange(texts) - first).tolist(), strict=True)
        ]
        direction = pa.DictionaryArray.from_arrays(
            pa.array(np.repeat([0, 1], [texts, pictures]), pa.int8()), pa.array(["image", "text"])
        )
        retrieved = pa.chunked_array([_lists(ranks.image_top), _lists(ranks.text_top)])
        return pa.table(
            {
                "key": pa.array(keys + split.keys, pa.string()),
                "direction": direction,
                "rank": small(np.concatenate([ranks.image, ranks.text]), max(texts, pictures)),
                "correct": pa.array(self.correct),
                "owner": small(np.concatenate([owner, np.arange(pictures)]), pictures),
                "retrieved": retrieved,
            }
        )

    def tables(self, evalset: EvalSet, split: EvalSplit) -> dict[str, Any]:
        """``retrieved``: some queries of both directions, the worst and some right ones, with their texts."""
        texts, keys = self.captions.texts, split.keys
        starts = np.searchsorted(self.captions.image, np.arange(len(keys) + 1))
        by_caption = {
            name: [
                {
                    "query": texts[i],
                    "owner": keys[int(self.captions.image[i])],
                    "rank": int(self.ranks.image[i]),
                    "retrieved": [keys[j] for j in self.ranks.image_top[i].tolist()],
                }
                for i in chosen
            ]
            for name, chosen in _examples(self.ranks.image).items()
        }
        by_picture = {
            name: [
                {
                    "query": keys[i],
                    "captions": list(texts[starts[i] : starts[i + 1]])[:SHOWN_CAPTIONS],
                    "rank": int(self.ranks.text[i]),
                    "retrieved": [texts[j] for j in self.ranks.text_top[i].tolist()],
                }
                for i in chosen
            ]
            for name, chosen in _examples(self.ranks.text).items()
        }
        return {"retrieved": {"image": by_caption, "text": by_picture}}


def _examples(rank: np.ndarray) -> dict[str, list[int]]:
    """The queries of the largest ranks, worst first, and right ones from all over the set."""
    wrong, right = np.flatnonzero(rank > 0), np.flatnonzero(rank == 0)
    worst = wrong[np.argsort(-rank[wrong], kind="stable")][:EXAMPLES]
    spread = right[np.linspace(0, len(right) - 1, min(EXAMPLES, len(right))).astype(np.int64)]
    return {"missed": worst.tolist(), "found": spread.tolist()}


def _lists(numbers: np.ndarray) -> pa.ListArray:
    rows, size = numbers.shape
    offsets = pa.array(np.arange(rows + 1) * size, pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(numbers.reshape(-1)).cast(pa.uint32()))
