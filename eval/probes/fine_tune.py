"""VTAB-1k's light-weight fine-tuning: a copy of an image tower with a new head, trained on a thousand pictures.

The recipe of Zhai et al. (arXiv 1910.04867), which has nothing to choose: all parameters, SGD with momentum 0.9,
batches of 64, a learning rate of 0.01 that is warmed up over the first 8 % of the steps and divided by ten at 30, 60
and 90 %, a head that starts at zero, 1,000 steps, no augmentation. Pictures are squashed to the model's input
(bilinear) and put in its range. The encoder stays as it was: a deep copy is trained, in float32. The same seed gives
the same bits on a CPU.
The price: 64,000 training images a task, some three hours of two CPU cores for a ViT-B/32; it is made for a GPU.

All test pictures are scored (VTAB's own code drops the last batch where it is not full).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...errors import ConfigError, DataError
from ...pretrain.data.transform import for_evaluation
from ...pretrain.encoders.encoder import Encoder
from ...pretrain.models.classifier import PooledTower
from ...pretrain.precision import contained, inference
from ...shards.images.image import ImageError, decode_rgb


@dataclass(frozen=True)
class FineTuning:
    """The recipe.

    Attributes:
        steps: batches of training.
        batch_size: pictures in a batch.
        learning_rate: before it is divided.
        warmup: share of the steps over which the learning rate rises from 0.
        decays: shares of the steps after which it is divided by ten.
        momentum: of SGD.
    """

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 0.01
    warmup: float = 0.08
    decays: tuple[float, ...] = (0.3, 0.6, 0.9)
    momentum: float = 0.9

    def rate(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        rise = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        return self.learning_rate * rise * 0.1 ** sum(step >= share * self.steps for share in self.decays)


class FineTuned:
    """A tower and a head that were trained together."""

    def __init__(self, tower: PooledTower, head: nn.Linear, encoder: Encoder, losses: list[float]) -> None:
        """
        Args:
            losses: mean training loss of each step.
        """
        self.losses = losses
        self._tower, self._head, self._encoder = tower.eval(), head.eval(), encoder

    def scores(self, images: Iterator[bytes], rows: int) -> Iterator[np.ndarray]:
        """Logits ``(b, classes) float32`` of encoded pictures, at most `rows` at a time, in order.

        Raises:
            DataError: a picture cannot be decoded.
        """
        batch = self._encoder.batch
        waiting: list[np.ndarray] = []
        done: list[np.ndarray] = []
        for number, image in enumerate(images):
            waiting.append(squashed(self._encoder, image, f"picture {number} of the test split"))
            if len(waiting) == batch:
                done.append(self._logits(waiting, batch))
                waiting = []
                if sum(map(len, done)) >= rows:
                    yield np.concatenate(done)
                    done = []
        if waiting:
            done.append(self._logits(waiting, batch))
        if done:
            yield np.concatenate(done)

    def _logits(self, images: list[np.ndarray], batch: int) -> np.ndarray:
        """The batch is always filled up, so that a picture's logits do not depend on its company."""
        filled = np.zeros((batch, *images[0].shape), np.uint8)
        filled[: len(images)] = images
        with inference(self._encoder.device, "fp32"):
            logits = self._head(self._tower.image_features(_pixels(filled)))
        return logits[: len(images)].float().cpu().numpy()


def fine_tune(
    encoder: Encoder,
    images: Sequence[bytes],
    labels: np.ndarray,
    classes: int,
    recipe: FineTuning | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FineTuned:
    """Train a copy of an encoder's image tower.

    Args:
        encoder: of open_clip or timm, with or without a head; left as it was.
        images: encoded pictures to learn from; kept in memory at the model's input size.
        labels: ``(n,)`` class numbers below `classes`.
        seed: of the order of pictures, and of dropout where the model has any.
        progress: called with (steps done, steps).

    Raises:
        ConfigError: the encoder has no module that could be trained.
        DataError: a picture cannot be decoded, there is none, the loss is not a number.
    """
    recipe = recipe or FineTuning()
    if not len(images):
        raise DataError("fine-tuning has no picture to learn from")
    prepared = np.stack([squashed(encoder, image, f"training picture {i}") for i, image in enumerate(images)])
    device = encoder.device
    threads = torch.get_num_threads() if device.type != "cpu" else 1
    with contained(threads, device), _repeatable(device):
        torch.manual_seed(seed)
        tower = _copied_tower(encoder)
        with torch.inference_mode():
            width = tower.eval().image_features(_pixels(prepared[:1])).shape[1]
        head = nn.Linear(width, classes).to(device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        tower.train()
        parameters = [p for p in [*tower.parameters(), *head.parameters()] if p.is_floating_point()]
        optimizer = torch.optim.SGD(parameters, lr=recipe.learning_rate, momentum=recipe.momentum)
        targets = torch.from_numpy(np.asarray(labels, np.int64)).to(device)
        losses: list[float] = []
        for step, rows in enumerate(batches(len(images), recipe.batch_size, recipe.steps, seed)):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step)
            loss = F.cross_entropy(head(tower.image_features(_pixels(prepared[rows]))), targets[torch.from_numpy(rows)])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            if not np.isfinite(losses[-1]):
                raise DataError(f"fine-tuning went astray: the loss of step {step} is {losses[-1]}")
            if progress:
                progress(step + 1, recipe.steps)
        return FineTuned(tower, head, encoder, losses)


def batches(n: int, size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Rows ``(size,) int64`` of each step: drawn orders of all `n`, one behind the other."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    left = np.zeros(0, np.int64)
    for _ in range(steps):
        while len(left) < size:
            left = np.concatenate([left, rng.permutation(n)])
        yield left[:size]
        left = left[size:]


def squashed(encoder: Encoder, image: bytes, what: str) -> np.ndarray:
    """An encoded picture at the model's input size, whatever its shape was: ``(h, w, 3) uint8``."""
    preprocess = replace(encoder.spec.preprocess, resize_mode="squash", interpolation="bilinear")
    try:
        return for_evaluation(decode_rgb(image), preprocess)
    except ImageError as error:
        raise DataError(f"{what} is broken: {error}") from error


def _copied_tower(encoder: Encoder) -> PooledTower:
    """The image tower alone, with parameters of its own that learn."""
    model: Any = encoder.model
    module = model.visual if "text" in encoder.modalities else model
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{encoder.spec.name} has no image tower that could be fine-tuned")
    tower = PooledTower(copy.deepcopy(module), encoder.spec.preprocess).to(encoder.device).float()
    return tower.requires_grad_(True)


def _pixels(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU: float32 as it is, and convolutions by the same algorithm each time."""
    if device.type == "cpu":
        yield
        return
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
