"""Labels of a batch as supervised losses need them: how many samples have one, and what each label is worth.

Labels stay a list of (sample, class, weight): with 10,000 classes a dense target is as large as the logits and almost
all zero. A sample without a label takes no part in a supervised loss, so the mean is over the labelled samples of the
whole batch, wherever they are; their number is asked of the other processes unless it is known.
"""

from __future__ import annotations

import torch

from ...errors import ConfigError, DataError
from ..features import Features, Labels
from ..processes.world import World


def logits_and_labels(features: Features, what: str) -> tuple[torch.Tensor, Labels]:
    """The logits ``(b, classes)`` and labels that a supervised loss works on; without labels an empty list.

    Raises:
        ConfigError: the network has no classification head.
        DataError: a label is outside the head's classes.
    """
    logits = features.logits
    if logits is None:
        raise ConfigError(f"the objective {what} needs a classification head, and this network has none")
    if features.labels is None:
        nothing = torch.empty(0, dtype=torch.int64, device=logits.device)
        return logits, Labels(nothing, nothing)
    if logits.device.type == "cpu":  # looking at values would make a GPU wait, and there indexing checks them itself
        _check_classes(features.labels.ids, logits.shape[1])
    return logits, features.labels


def _check_classes(ids: torch.Tensor, classes: int) -> None:
    wrong = ids[(ids < 0) | (ids >= classes)]
    if len(wrong):
        raise DataError(f"a sample has the class number {int(wrong[0])}, but the head has {classes} classes")


def count_labelled(labels: Labels) -> torch.Tensor:
    """How many of this process's samples have a label, ``() int64``."""
    rows = labels.rows  # ascending
    return (rows[1:] != rows[:-1]).sum() + min(1, len(rows))


def labelled_total(labels: Labels, features: Features, world: World) -> torch.Tensor:
    """Labelled samples of the whole batch, ``() float32``, at least 1: what a mean over them divides by.

    Raises:
        ValueError: `features` are a piece of this process's samples, and do not say how many are labelled in all.
    """
    if features.labelled_total is not None:
        return torch.tensor(float(max(1, features.labelled_total)), device=labels.rows.device)
    start, stop = world.share(features.total)
    if len(features.image) != stop - start:
        raise ValueError("a piece of a batch must come with `labelled_total`: the mean is over the whole batch")
    return world.sum(count_labelled(labels)).float().clamp(min=1)


def weights_of(labels: Labels) -> torch.Tensor:
    """Weight of each label, ``(k,) float32``."""
    return torch.ones(len(labels.rows), device=labels.rows.device) if labels.weights is None else labels.weights


def shares(labels: Labels, size: int) -> torch.Tensor:
    """Weights scaled so that each labelled sample's sum to one, ``(k,) float32``.

    Args:
        size: samples of this process.
    """
    weights = weights_of(labels)
    total = torch.zeros(size, dtype=weights.dtype, device=weights.device).index_add_(0, labels.rows, weights)
    return weights / total[labels.rows]
