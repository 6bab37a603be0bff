"""What a network computes for one process's part of a batch: everything an objective may look at."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Labels:
    """Class numbers of samples, any number per sample.

    Attributes:
        rows: ``(k,) int64``, ascending: which sample, counted within this process's part.
        ids: ``(k,) int64``: which class.
        weights: ``(k,) float32``: how much of it (mixup shares a sample between classes); None = 1.
    """

    rows: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor | None = None


@dataclass
class TeacherFeatures:
    """What one teacher says about the same samples; constants, but for the student's features projected for it.

    Attributes:
        image, text: ``(b, d) float32``, L2-normalised, in the teacher's own space; None if it has no such tower.
        logits: ``(b, classes) float32`` of a teacher that classifies.
        scale: the teacher's factor on cosines.
        projected_image, projected_text: ``(b, d) float32``, the student's features led into the teacher's space by the
            network's projection, with gradient; None = the student's own, which then have as many numbers.
    """

    image: torch.Tensor | None = None
    text: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    scale: float = 1.0
    projected_image: torch.Tensor | None = None
    projected_text: torch.Tensor | None = None


@dataclass
class Features:
    """Of this process's part of a batch.

    Attributes:
        image: ``(b, d) float32``, L2-normalised.
        text: ``(b, d) float32``, L2-normalised, of each sample's own caption; None without a text tower. Rows of
            samples without a caption hold nothing useful.
        captioned: ``(b,) bool``, which samples have a caption; None = all.
        logits: ``(b, classes) float32`` of a classification head; None without one.
        scale: factor on cosines, ``() float32`` (not its logarithm).
        bias: ``() float32`` added to scaled cosines, or None.
        labels: classes of the samples, or None.
        teachers: in the recipe's order.
        labelled_total: samples of the whole batch that have a label, where the caller knows; None = ask the processes.
            Must be given with pieces of a process's share.
        first: place of this process's first sample in the whole batch.
        total: samples in the whole batch.
    """

    image: torch.Tensor
    text: torch.Tensor | None
    scale: torch.Tensor
    first: int
    total: int
    captioned: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    labels: Labels | None = None
    teachers: list[TeacherFeatures] = field(default_factory=list)
    labelled_total: int | None = None
