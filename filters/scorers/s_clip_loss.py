"""`s_clip_loss`: CLIP similarity less what an image and a caption have in common with everything.

In random batches of B pairs, with S_ij = <I_i, T_j> / tau,

    score_i = <I_i, T_i>  -  tau/2 (log sum_j exp S_ij  +  log sum_j exp S_ji)          averaged over K permutations

so a caption that fits every picture, or a picture that fits every caption, loses what it gains in the first term.
(s-CLIPLoss, also negCLIPLoss: Wang et al., NeurIPS 2024, arXiv 2405.19547, section 3.) Batches are drawn from the whole
pool, all of exactly B rows (`permuted_batches.py`): a smaller batch has a smaller sum and would score higher. Equal to
float64 within 1e-6.

The price is B products of length d per row and permutation, 0.16 core-hours per million rows at B = 32,768, d = 768 and
K = 1; fewer permutations (5 are nearly as stable as 10) are the first thing to save. Each permutation passes through
scratch files of the embeddings' own size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...errors import DataError
from ..base import SCORERS, Columns, Context, Emitted, Part, Routed, Scorer
from ..kmeans import compact
from ..log_sum_exp import log_sum_exp_both
from ..permuted_batches import Permutation, Ranks, rank_rows
from ..prompts import logit_scale
from .clip_similarity import row_products

PURPOSE = "s_clip_loss"


@dataclass(frozen=True)
class Scored:
    """What the batches gave.

    Attributes:
        routed: per permutation, ``score`` of the rows, from one or two shuffles (whole batches, the filled-up one).
        temperature: tau.
        rows: rows of the pool that were looked at.
        ranked: those that have both embeddings.
        batch: B, or the number of ranked rows when there are fewer.
        filled: context rows that the last batch of each permutation was filled up with.
    """

    routed: tuple[tuple[Routed, ...], ...]
    temperature: float
    rows: int
    ranked: int
    batch: int
    filled: int


@SCORERS.register
class SClipLoss(Scorer):
    """CLIP similarity minus a log-sum-exp over random batches (s-CLIPLoss); NaN where an embedding is missing."""

    whole_pool: ClassVar[bool] = True
    type: Literal["s_clip_loss"] = "s_clip_loss"
    encoder: str = Field(description="Encoder whose embeddings are compared.")
    batch_size: int = Field(32_768, ge=2, description="Pairs per batch (B); a smaller pool is one batch.")
    permutations: int = Field(10, ge=1, description="How often the pool is cut into random batches (K).")
    temperature: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="tau of the softmax; auto = what the encoder was trained with, 1 / its logit scale."
    )

    def columns(self) -> list[str]:
        return [f"{self.encoder}.image", f"{self.encoder}.text"]

    def encoders(self) -> list[str]:
        return [self.encoder] if self.temperature == "auto" else []

    def fit(self, context: Context) -> Scored:
        tau = self.temperature
        if tau == "auto":
            tau = 1 / context.call(logit_scale, context.encoder(self.encoder))
        image, text = self.columns()
        pool = context.pool
        rows = sum(pool.map(_length))
        ranks = rank_rows(pool, context.seed, PURPOSE, _has_both, (image, text))
        if rows and not ranks.count:
            raise DataError(f"{self.encoder}: none of {rows} rows has an image and a text embedding; was it run?")
        cuts = self._cuts(ranks.count, context.seed)
        routed = []
        for cut in cuts:
            arguments = (ranks, cut, image, text, tau)
            shuffles = [pool.shuffle(_emit_whole, _reduce_whole, cut.whole, *arguments)]
            if cut.left_over:
                shuffles.append(pool.shuffle(_emit_filled, _reduce_filled, 1, context.columns, *arguments))
            routed.append(tuple(shuffles))
        filled = self.batch_size - cuts[0].left_over if cuts and cuts[0].left_over else 0
        return Scored(tuple(routed), tau, rows, ranks.count, min(self.batch_size, ranks.count), filled)

    def _cuts(self, count: int, seed: int) -> list[Permutation]:
        """One per permutation; a single one where all are alike because everything fits into one batch."""
        number = self.permutations if count > self.batch_size else min(count, 1)
        return [Permutation(count, self.batch_size, seed, PURPOSE, k) for k in range(number)]

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        assert isinstance(state, Scored)
        total = np.zeros(len(part)) if state.routed else np.full(len(part), np.nan)
        for shuffles in state.routed:
            once = np.full(len(part), np.nan)
            for routed in shuffles:
                found = routed.of(part).get("score", once)
                once = np.where(np.isnan(found), once, found)
            total += once
        return {name: (total / max(1, len(state.routed))).astype(np.float32)}

    def describe(self, state: Any = None) -> dict[str, Any]:
        assert isinstance(state, Scored)
        return {
            "temperature": state.temperature,
            "batch_size": state.batch,
            "one_batch_of_all": state.ranked <= self.batch_size,
            "permutations": len(state.routed),
            "scored": state.ranked,
            "without_embedding": state.rows - state.ranked,
            "context_rows_per_permutation": state.filled,
        }


def _length(part: Part) -> int:
    return len(part)


def _has_both(part: Part, image: str, text: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows whose two embeddings have a direction: neither NaN nor zero."""
    a, b = part.array(image), part.array(text)
    if a.shape != b.shape:
        raise DataError(f"{image} is {a.shape}, {text} is {b.shape}: they are not of one space")
    eligible = np.ones(len(part), bool)
    for rows in (a, b):
        norm = np.einsum("ij,ij->i", rows, rows) if len(rows) else np.empty(0, np.float32)
        eligible &= np.isfinite(norm) & (norm > 0)
    return eligible, {}


def _emit_whole(part: Part, ranks: Ranks, cut: Permutation, image: str, text: str, tau: float) -> Emitted:
    batch, _ = cut.places(ranks.of(part))
    chosen = (batch >= 0) & (batch < cut.whole)
    values = {"image": compact(part.array(image)[chosen]), "text": compact(part.array(text)[chosen])}
    return Emitted(batch[chosen], part.rows[chosen], part.uids()[chosen], values)


def _emit_filled(
    part: Part, columns: Columns, ranks: Ranks, cut: Permutation, image: str, text: str, tau: float
) -> Emitted:
    batch, context = cut.places(ranks.of(part))
    chosen = np.flatnonzero((batch == cut.whole) | context)
    few = columns.part(part.index, part.rows[chosen])  # only these rows are read
    values = {"image": compact(few.array(image)), "text": compact(few.array(text)), "own": ~context[chosen]}
    return Emitted(np.zeros(len(chosen), np.int64), part.rows[chosen], part.uids()[chosen], values)


def _reduce_whole(bucket: int, rows: dict[str, np.ndarray], *arguments: Any) -> dict[str, np.ndarray]:
    return {"score": batch_scores(rows["image"], rows["text"], arguments[-1])}


def _reduce_filled(bucket: int, rows: dict[str, np.ndarray], *arguments: Any) -> dict[str, np.ndarray]:
    return {"score": np.where(rows["own"], batch_scores(rows["image"], rows["text"], arguments[-1]), np.nan)}


def batch_scores(image: np.ndarray, text: np.ndarray, tau: float) -> np.ndarray:
    """``(n,) float64`` scores of one batch of ``(n, d)`` embeddings, stored as float16 or float32."""
    image, text = np.asarray(image, np.float32), np.asarray(text, np.float32)
    to_texts, to_images = log_sum_exp_both(image, text, tau)
    return row_products(image, text) - tau / 2 * (to_texts + to_images)
