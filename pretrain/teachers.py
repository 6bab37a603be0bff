"""Trained models that another one learns from: what they say about each batch's pictures and captions.

A teacher sees the same crops as the student (as in Beyer et al., "Knowledge distillation: a good teacher is patient and
consistent", CVPR 2022), resized to its own input, and the captions in its own tokenizer. Its answers are computed with
each batch; keeping them would need a copy per crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import ConfigError
from .data.batch import Batch
from .encoders.encoder import Encoder
from .features import TeacherFeatures
from .precision import inference


class Followed(Protocol):
    """How a teacher is followed (`recipe.Teacher`), as far as it matters here."""

    model: str
    kind: Any


class Teachers:
    """Encoders (with or without a text tower) as teachers.

    Attributes:
        encoders: in the recipe's order.
    """

    def __init__(self, encoders: Sequence[Encoder], kinds: Sequence[str] | None = None) -> None:
        """
        Args:
            kinds: what each teaches: logits, features or classes; None = what is of use to any.
        """
        self.encoders = list(encoders)
        self._kinds = list(kinds or ["features"] * len(self.encoders))
        self._heads = [_head(encoder) for encoder in self.encoders]

    def __call__(self, batch: Batch, piece: slice) -> list[TeacherFeatures]:
        """What each teacher says about the samples `piece` of a batch."""
        images = torch.from_numpy(batch.images[piece]).permute(0, 3, 1, 2)
        return [self._ask(i, images, batch, piece) for i in range(len(self.encoders))]

    def _ask(self, number: int, images: torch.Tensor, batch: Batch, piece: slice) -> TeacherFeatures:
        encoder, kind = self.encoders[number], self._kinds[number]
        device = encoder.device
        empty = not len(images)  # a process without samples; no tower is asked about nothing
        with inference(device, encoder.precision):
            pictures = images.to(device)
            if tuple(pictures.shape[2:]) != tuple(encoder.image_size) and not empty:
                resized = F.interpolate(pictures.float(), encoder.image_size, mode="bicubic", antialias=True)
                pictures = resized.round().clamp(0, 255).to(torch.uint8)
            towers: Any = encoder.towers
            said = TeacherFeatures()
            if kind == "classes":
                weight, bias = (tensor.to(device) for tensor in self._heads[number])
                raw = torch.zeros((0, weight.shape[1]), device=device) if empty else towers.image_features(pictures)
                said.logits = F.linear(raw.float(), weight, bias)
            else:
                said.image = torch.zeros((0, encoder.dim), device=device) if empty else towers.encode_images(pictures)
            if kind != "classes" and "text" in encoder.modalities:
                said.scale = encoder.logit_scale
                at = torch.from_numpy(np.maximum(batch.caption[piece], 0)).to(device)
                if len(batch.texts) and not empty:
                    said.text = towers.encode_texts(encoder.tokenizer(batch.texts))[at]  # type: ignore[attr-defined]
                else:  # rows that nobody looks at
                    said.text = torch.zeros((len(at), encoder.dim), device=device)
        for name in ("image", "text", "logits"):
            answer = getattr(said, name)
            setattr(said, name, None if answer is None else answer.clone())  # out of inference mode
        return said


def joined(parts: Sequence[TeacherFeatures]) -> TeacherFeatures:
    """What one teacher said about consecutive pieces of a batch, as about all of it."""
    if len(parts) == 1:
        return parts[0]
    whole = TeacherFeatures(scale=parts[0].scale)
    for name in ("image", "text", "logits"):
        if getattr(parts[0], name) is not None:
            setattr(whole, name, torch.cat([getattr(part, name) for part in parts]))
    return whole


def refuse_unable(followed: Followed, encoder: Encoder, classes: Sequence[str] | None) -> None:
    """Find out before the first step whether a teacher can teach what it should.

    Args:
        classes: that the student's head tells apart; None = it has no head.

    Raises:
        ConfigError: it cannot.
    """
    who = f"the teacher {followed.model}"
    if followed.kind == "logits" and "text" not in encoder.modalities:
        raise ConfigError(
            f"{who} is an image model: it compares no pictures with captions and cannot teach `logits`; use `features`"
        )
    if followed.kind != "classes":
        return
    head = getattr(encoder, "head", None)
    if head is None:
        raise ConfigError(f"{who} has no classification head, or its classes have no names: it cannot teach `classes`")
    if classes is None:
        raise ConfigError(f"{who} should teach `classes`, but what is trained has no head; the recipe needs `labels`")
    if list(head.classes) != list(classes):
        raise ConfigError(
            f"{who} knows {len(head.classes)} classes, such as {head.classes[0]!r}; those of the labels are "
            f"{len(classes)}, such as {classes[0]!r}: they must be the same, in the same order (`labels.classes`)"
        )


def _head(encoder: Encoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a teacher's classifier; nothing without one."""
    head: Any = getattr(encoder, "head", None)
    if head is None:
        return torch.empty(0, 0), torch.empty(0)
    return torch.from_numpy(head.weight.copy()), torch.from_numpy(head.bias.copy())
