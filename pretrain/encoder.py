"""A trained model that turns images and captions into embeddings.

Results belong to the row alone: a row's embedding changes by less than 1e-6 with the company it keeps in a batch, and
batches are always filled in the same order to the same sizes, so the same inputs give the same bytes. Captions are
encoded once each, shortest first, and cut to the longest of their batch where that is exact (see `towers.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal

import numpy as np
import open_clip
import torch

from ..errors import ConfigError
from ..shards import storage
from ..shards.images.image import decode_rgb
from .encoder_folder import find_encoder
from .models import ModelSpec, build
from .tokenizer import Tokenizer, tokenizer_for
from .towers import Towers, text_ends, text_tower
from .transform import for_evaluation

CPU_BATCH, GPU_BATCH = 64, 512
Precision = Literal["fp32", "bf16"]


def pick_device(device: str) -> torch.device:
    """``auto`` is the first GPU if there is one, else the CPU."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def arithmetic(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Context in which the towers run: plain float32, or bfloat16 where it is safe (autocast)."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, torch.bfloat16)


class Encoder:
    """Images and captions -> L2-normalised float32 embeddings in one space.

    Attributes:
        spec: architecture, tokenizer and preprocessing.
        model: the open_clip module, in evaluation mode.
        tokenizer: texts -> token ids.
        batch: images or captions per forward pass.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        spec: ModelSpec,
        tokenizer: Tokenizer,
        device: torch.device,
        precision: Precision = "fp32",
    ) -> None:
        self.spec = spec
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.precision: Precision = precision
        self.batch = CPU_BATCH if device.type == "cpu" else GPU_BATCH
        self._towers = Towers(self.model, spec.preprocess).to(device)

    @classmethod
    def load(
        cls,
        model: str,
        pretrained: str | None = None,
        device: str = "auto",
        precision: Precision = "fp32",
    ) -> Encoder:
        """Load an encoder folder, or an open_clip model with a local checkpoint. Nothing is downloaded.

        Args:
            model: encoder folder, open_clip model name, shipped model name or model JSON.
            pretrained: local checkpoint, when `model` is not a folder.
            device: ``auto``, ``cpu``, ``cuda``...
            precision: ``bf16`` halves the time on a GPU at about three digits of accuracy.

        Raises:
            ConfigError: unknown model, missing weights, or weights of another architecture.
        """
        found = find_encoder(model, pretrained)
        tokenizer = tokenizer_for(found.spec.tokenizer, found.spec.config["text_cfg"])
        module = build(found.spec, seed=0)
        try:
            open_clip.load_checkpoint(module, storage.local(found.weights))  # type: ignore[arg-type]
        except Exception as error:
            reason = str(error).split("\n")[0]
            raise ConfigError(f"{found.weights} does not hold the weights of {found.spec.name}: {reason}") from error
        return cls(module, found.spec, tokenizer, pick_device(device), precision)

    @cached_property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.spec.config["embed_dim"])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the model's input, pixels."""
        return self.spec.preprocess.size

    @property
    def logit_scale(self) -> float:
        """Factor on cosines that the model was trained with (not its logarithm)."""
        return float(self.model.logit_scale.exp())  # type: ignore[operator, union-attr]

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal characters over weights, preprocessing and tokenizer."""
        digest = hashlib.blake2b(digest_size=16)
        about = {"preprocess": asdict(self.spec.preprocess), "tokenizer": self.spec.tokenizer}
        digest.update(json.dumps(about, sort_keys=True).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def prepare(self, image: np.ndarray | bytes) -> np.ndarray:
        """Decoded ``(h, w, 3) uint8`` or an encoded file -> the model's ``(*image_size, 3) uint8`` input.

        Raises:
            ImageError: the file cannot be decoded.
        """
        return for_evaluation(decode_rgb(image) if isinstance(image, bytes) else image, self.spec.preprocess)

    def encode_images(self, images: Sequence[np.ndarray | bytes]) -> np.ndarray:
        """Embeddings of images (`prepare` is applied to each), ``(n, d) float32``.

        Raises:
            ImageError: a file cannot be decoded.
        """
        found = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), self.batch):
            prepared = np.stack([self.prepare(image) for image in images[start : start + self.batch]])
            found[start : start + len(prepared)] = self.encode_prepared(prepared)
        return found

    def encode_prepared(self, images: np.ndarray) -> np.ndarray:
        """Embeddings of one batch of prepared images ``(b, h, w, 3) uint8``, ``(b, d) float32``."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        with torch.inference_mode(), arithmetic(self._towers.device, self.precision):
            return self._towers.encode_images(pixels).cpu().numpy()

    def encode_texts(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """Embeddings of captions, ``(n, d) float32``; equal captions are encoded once."""
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        tokens = self.tokenizer(list(distinct))
        tower = text_tower(self.model)
        by_length = np.argsort(text_ends(tower, tokens), kind="stable") if tower else np.arange(len(tokens))
        features = np.empty((len(distinct), self.dim), np.float32)
        for start in range(0, len(tokens), self.batch):
            chosen = by_length[start : start + self.batch]
            with torch.inference_mode(), arithmetic(self._towers.device, self.precision):
                features[chosen] = self._towers.encode_texts(tokens[chosen]).cpu().numpy()
            if progress:
                progress(min(start + self.batch, len(tokens)), len(tokens))
        return features[[distinct[text] for text in texts]]
