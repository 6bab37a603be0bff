"""Semantic softmax: one softmax per level of the class hierarchy, each over the classes of that level alone.

A label says something about every level above it: "poodle" is also a dog and an animal. So a sample's label becomes
one label per level, its class and that class's ancestors (`class_hierarchy.py`); levels below it say nothing. Level k
is weighted by ``W_k = min(O_0 / O_k, 20)``, where O_k counts the classes at level k or deeper, because every deep label
also counts on all levels above; each level's mean is over all labelled samples, those that do not reach it included.
Source: Ridnik et al., "ImageNet-21K pretraining for the masses", NeurIPS 2021, with the bound of its released training.

The logits are one head's; a level of one class has nothing to decide and adds nothing.
"""

from __future__ import annotations

import numpy as np
import torch

from ...errors import ConfigError
from ..data.class_hierarchy import ClassHierarchy
from ..features import Features
from ..processes.world import World
from .label_targets import count_labelled, labelled_total, logits_and_labels, shares
from .softmax import softmax_sum


def level_weights(hierarchy: ClassHierarchy, largest: float = 20.0) -> np.ndarray:
    """Weight of each level, ``(levels,) float64``; 1 for the top."""
    at = np.bincount(hierarchy.depth, minlength=hierarchy.levels)
    reach = at[::-1].cumsum()[::-1]
    return np.minimum(reach[0] / reach, largest)


class SemanticSoftmaxObjective:
    """Weighted sum over levels of the mean cross entropy within the level."""

    couples_samples = False

    def __init__(
        self, hierarchy: ClassHierarchy, smoothing: float = 0.2, largest_level_weight: float = 20.0, weight: float = 1.0
    ) -> None:
        """
        Args:
            hierarchy: of the head's classes, in the head's order.
            smoothing: share of a level's target that is spread over the level's classes.
            largest_level_weight: bound on W_k.
            weight: factor on the term.
        """
        self.smoothing, self.weight = smoothing, weight
        self.level_weights = level_weights(hierarchy, largest_level_weight).tolist()
        members = [np.flatnonzero(hierarchy.depth == level) for level in range(hierarchy.levels)]
        within = np.zeros(len(hierarchy.names), np.int64)  # a class's place among those of its level
        for classes in members:
            within[classes] = np.arange(len(classes))
        ancestors = hierarchy.ancestors
        self._members = [torch.from_numpy(classes) for classes in members]
        self._places = torch.from_numpy(np.where(ancestors >= 0, within[ancestors], -1))  # (classes, levels)

    def counts(self, features: Features) -> dict[str, torch.Tensor]:
        """Labelled samples of this process."""
        return {"semantic_softmax": count_labelled(logits_and_labels(features, "semantic_softmax")[1])}

    def terms(self, features: Features, world: World) -> dict[str, torch.Tensor]:
        """``{"semantic_softmax": part}``, see `base.Objective`."""
        logits, labels = logits_and_labels(features, "semantic_softmax")
        if logits.shape[1] != len(self._places):
            raise ConfigError(
                f"the classification head has {logits.shape[1]} classes, the hierarchy {len(self._places)}"
            )
        if self._places.device != logits.device:
            self._places = self._places.to(logits.device)
            self._members = [classes.to(logits.device) for classes in self._members]
        total = labelled_total(labels, features, world)
        share = shares(labels, len(logits))
        places = self._places[labels.ids]
        z = logits.float()
        loss = z.sum() * 0.0  # a batch without labels still has a gradient, of zeros
        for level, (classes, weight) in enumerate(zip(self._members, self.level_weights, strict=True)):
            if len(classes) < 2:
                continue
            place = places[:, level]
            # labels that end above this level point at class 0 with share 0: no choice by value, which a GPU waits for
            reached = torch.where(place >= 0, share, torch.zeros_like(share))
            part = softmax_sum(z[:, classes], labels.rows, place.clamp(min=0), reached, self.smoothing)
            loss = loss + weight * part
        return {"semantic_softmax": self.weight * loss / total}
