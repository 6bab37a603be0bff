"""Softmax cross entropy against the samples' labels, smoothed, mixed or shared between several labels.

With targets t that sum to one the loss of a sample is ``log sum_c exp z_c - (1 - e) sum_c t_c z_c - e mean_c z_c`` for
label smoothing e (Szegedy et al., CVPR 2016, section 7). The middle sum runs over the sample's labels only, so no dense
target is ever made. Several labels share the target equally: the hashtag loss of Mahajan et al., ECCV 2018.
"""

from __future__ import annotations

import torch

from ..features import Features
from ..processes.world import World
from .label_targets import count_labelled, labelled_total, logits_and_labels, shares


class SoftmaxObjective:
    """Mean cross entropy over the labelled samples of the whole batch."""

    couples_samples = False

    def __init__(self, smoothing: float = 0.0, weight: float = 1.0) -> None:
        """
        Args:
            smoothing: share of the target that is spread over all classes.
            weight: factor on the term.
        """
        self.smoothing = smoothing
        self.weight = weight

    def counts(self, features: Features) -> dict[str, torch.Tensor]:
        """Labelled samples of this process."""
        return {"softmax": count_labelled(logits_and_labels(features, "softmax")[1])}

    def terms(self, features: Features, world: World) -> dict[str, torch.Tensor]:
        """``{"softmax": part}``, see `base.Objective`."""
        logits, labels = logits_and_labels(features, "softmax")
        total = labelled_total(labels, features, world)
        share = shares(labels, len(logits))
        found = softmax_sum(logits.float(), labels.rows, labels.ids, share, self.smoothing)
        return {"softmax": self.weight * found / total}


def softmax_sum(
    logits: torch.Tensor, rows: torch.Tensor, ids: torch.Tensor, share: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Sum over labels of ``share`` times the smoothed cross entropy of that label, ``()``.

    Args:
        logits: ``(b, classes)``.
        rows, ids, share: ``(k,)`` sample, class and weight of each label.
    """
    picked = logits[rows, ids]
    normaliser = torch.logsumexp(logits, 1)
    loss = normaliser[rows] - (1 - smoothing) * picked
    if smoothing:
        loss = loss - smoothing * logits.mean(1)[rows]
    return (share * loss).sum()
