"""Trained models that another one learns from: what they say about each batch's pictures and captions.

A teacher sees the same crops as the student (as in Beyer et al., "Knowledge distillation: a good teacher is patient and
consistent", CVPR 2022), resized to its own input, and the captions in its own tokenizer. Its answers are computed with
each batch; keeping them would need a copy per crop.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .encoder import Encoder
from .features import TeacherFeatures
from .loader import Batch
from .precision import inference


class Teachers:
    """Encoders (with or without a text tower) as teachers."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self.encoders = list(encoders)

    def __call__(self, batch: Batch, piece: slice) -> list[TeacherFeatures]:
        """What each teacher says about the samples `piece` of a batch."""
        images = torch.from_numpy(batch.images[piece]).permute(0, 3, 1, 2)
        return [self._ask(encoder, images, batch, piece) for encoder in self.encoders]

    def _ask(self, encoder: Encoder, images: torch.Tensor, batch: Batch, piece: slice) -> TeacherFeatures:
        device = encoder.device
        with inference(device, encoder.precision):
            pictures = images.to(device)
            if tuple(pictures.shape[2:]) != tuple(encoder.image_size) and len(pictures):
                resized = F.interpolate(pictures.float(), encoder.image_size, mode="bicubic", antialias=True)
                pictures = resized.round().clamp(0, 255).to(torch.uint8)
            image = encoder.towers.encode_images(pictures) if len(pictures) else torch.zeros((0, encoder.dim))
            said = TeacherFeatures(image=image)
            if "text" in encoder.modalities and len(batch.texts):
                text = encoder.towers.encode_texts(encoder.tokenizer(batch.texts))  # type: ignore[attr-defined]
                said.text = text[torch.from_numpy(batch.caption[piece]).clamp(min=0).to(device)]
                said.scale = encoder.logit_scale
        said.image = said.image.clone() if said.image is not None else None  # out of inference mode
        said.text = said.text.clone() if said.text is not None else None
        return said
