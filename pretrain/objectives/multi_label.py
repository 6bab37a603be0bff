"""A sigmoid per class: is it in the picture or not? For samples with any number of labels that are all true.

With probability p of a class and target y (a label's weight, so mixed pictures have fractions) the loss is
``-y (1 - p)^g+ log p - (1 - y) q^g- log(1 - q)`` with ``q = max(p - m, 0)``: the asymmetric loss of Ridnik et al.,
ICCV 2021, equations 4 to 7, which is binary cross entropy for g+ = g- = m = 0. A sample without any label counts as
not labelled, not as one where all classes are absent; the two look the same in a list of labels.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from ..features import Features, Labels
from ..processes.world import World
from .label_targets import count_labelled, labelled_total, logits_and_labels, weights_of

EPSILON = 1e-8  # keeps logarithms and slopes of roots finite at probabilities of 0 and 1


class MultiLabelObjective:
    """Mean over the labelled samples of the whole batch of the loss of all classes."""

    couples_samples = False

    def __init__(
        self,
        over_classes: Literal["sum", "mean"] = "sum",
        positive_focus: float = 0.0,
        negative_focus: float = 0.0,
        margin: float = 0.0,
        weight: float = 1.0,
    ) -> None:
        """
        Args:
            over_classes: whether a sample's loss is the sum or the mean of its classes'.
            positive_focus, negative_focus: g+ and g- of the asymmetric loss.
            margin: m of the asymmetric loss.
            weight: factor on the term.
        """
        self.over_classes = over_classes
        self.positive_focus, self.negative_focus, self.margin = positive_focus, negative_focus, margin
        self.weight = weight

    def counts(self, features: Features) -> dict[str, torch.Tensor]:
        """Labelled samples of this process."""
        return {"multi_label": count_labelled(logits_and_labels(features, "multi_label")[1])}

    def terms(self, features: Features, world: World) -> dict[str, torch.Tensor]:
        """``{"multi_label": part}``, see `base.Objective`."""
        logits, labels = logits_and_labels(features, "multi_label")
        total = labelled_total(labels, features, world)
        there, target = _targets(labels, logits)
        z = logits.float()[there]
        if self.positive_focus or self.negative_focus or self.margin:
            loss = self._asymmetric(z, target)
        else:
            loss = F.binary_cross_entropy_with_logits(z, target, reduction="sum")
        if self.over_classes == "mean":
            loss = loss / logits.shape[1]
        return {"multi_label": self.weight * loss / total}

    def _asymmetric(self, z: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        p = torch.sigmoid(z)
        yes = F.logsigmoid(z)
        if self.positive_focus:
            yes = yes * (1 - p).clamp(min=EPSILON) ** self.positive_focus
        if self.margin:
            q = (p - self.margin).clamp(min=0)
            no = torch.log((1 - q).clamp(min=EPSILON))
        else:
            q, no = p, F.logsigmoid(-z)
        if self.negative_focus:
            no = no * q.clamp(min=EPSILON) ** self.negative_focus
        return -(target * yes + (1 - target) * no).sum()


def _targets(labels: Labels, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the labelled samples ``(n,)`` and their targets ``(n, classes) float32``, at most 1."""
    there, row = torch.unique_consecutive(labels.rows, return_inverse=True)
    target = torch.zeros((len(there), logits.shape[1]), device=logits.device)
    target.index_put_((row, labels.ids), weights_of(labels).to(target.dtype), accumulate=True)
    return there, target.clamp_(max=1)
