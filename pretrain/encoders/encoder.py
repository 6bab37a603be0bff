"""A trained model that turns images and captions into embeddings.

An embedding is a function of the picture or the caption alone, bit for bit, whatever company it keeps: the model is
always run over the same number of rows (the last batch is filled up), and captions in the same few lengths, so that
matrix products are always cut up alike. That holds on one CPU thread, which is what workers have and `embed_shards`
takes. The price is the filling: at most one batch of images, and one of captions per length, in a call.

Captions are encoded once each, and cut to their length where that is exact (see `towers.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from ...errors import ConfigError
from ...shards.images.image import decode_rgb
from ..data.tokenizer import Tokenizer
from ..data.transform import for_evaluation
from ..models.architecture import Modality, ModelSpec
from ..models.towers import ImageTower, Towers
from ..models.weights import weights_digest
from ..precision import Precision, inference, one_thread

CPU_BATCH, CPU_SMALL_BATCH, GPU_BATCH = 16, 64, 512
"""Images per forward pass. On a CPU core 8 to 16 are fastest (RN50 is half as fast again as with 64); small inputs make
up for the calls with more."""
SMALL_PIXELS = 64 * 64
TEXT_CPU_BATCH, TEXT_GPU_BATCH = 16, 512
TEXT_LENGTHS = (8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 64)
"""Tokens that captions are cut to, beside the context length."""
IN_FLIGHT = 2  # batches that a GPU works on while the next one is prepared

Wait = Callable[[], np.ndarray]


class Encoder:
    """Images and captions -> L2-normalised float32 embeddings in one space.

    Attributes:
        modalities: what it embeds, ``("image", "text")`` or ``("image",)``.
        spec: architecture, tokenizer and preprocessing.
        model: the open_clip module, in evaluation mode.
        device: where it runs.
        precision: in which arithmetic.
        batch: images per forward pass; a function of the device and the model's input.
        text_batch: captions per forward pass.
        towers: run the module.
    """

    modalities: ClassVar[tuple[Modality, ...]] = ("image", "text")

    def __init__(
        self,
        model: torch.nn.Module,
        spec: ModelSpec,
        tokenizer: Tokenizer | None,
        device: torch.device,
        precision: Precision = "fp32",
    ) -> None:
        self.spec = spec
        self.model = model.eval().requires_grad_(False)
        self.device = device
        self.precision: Precision = precision
        height, width = self.image_size
        on_cpu = CPU_SMALL_BATCH if height * width <= SMALL_PIXELS else CPU_BATCH
        self.batch, self.text_batch = (GPU_BATCH, TEXT_GPU_BATCH) if device.type != "cpu" else (on_cpu, TEXT_CPU_BATCH)
        self._tokenizer = tokenizer
        self.towers = self._make_towers().to(device)

    @cached_property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.spec.config["embed_dim"])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the model's input, pixels."""
        return self.spec.preprocess.size

    @property
    def image_key(self) -> Hashable:
        """Encoders with equal keys prepare a picture to the same array."""
        geometry = self.spec.preprocess
        return geometry.size, geometry.interpolation, geometry.resize_mode, geometry.fill_color

    @property
    def tokenizer(self) -> Tokenizer:
        """Texts -> token ids.

        Raises:
            ConfigError: it has no text tower.
        """
        if self._tokenizer is None:
            raise ConfigError(f"{self.spec.name} is an image model: it has no text tower and embeds no captions")
        return self._tokenizer

    @property
    def logit_scale(self) -> float:
        """Factor on cosines that the model was trained with (not its logarithm)."""
        return float(self.model.logit_scale.exp())  # type: ignore[operator, union-attr]

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal characters over weights, preprocessing and tokenizer."""
        content = json.dumps([self._about, weights_digest(self.model)], sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    @property
    def _about(self) -> dict[str, Any]:
        """What an embedding depends on beside the weights, as JSON."""
        return {"preprocess": asdict(self.spec.preprocess), "tokenizer": self.spec.tokenizer}

    def prepare(self, image: np.ndarray | bytes) -> np.ndarray:
        """Decoded ``(h, w, 3) uint8`` or an encoded file -> the model's ``(*image_size, 3) uint8`` input.

        Raises:
            ImageError: the file cannot be decoded.
        """
        return for_evaluation(decode_rgb(image) if isinstance(image, bytes) else image, self.spec.preprocess)

    def new_batch(self) -> torch.Tensor:
        """Room for one batch of prepared images, ``(batch, *image_size, 3) uint8``, black; pinned for a GPU."""
        return torch.zeros((self.batch, *self.image_size, 3), dtype=torch.uint8, pin_memory=self.device.type == "cuda")

    def submit(self, images: torch.Tensor) -> Wait:
        """Start the forward pass of a whole batch (`new_batch`); the call of what is returned waits for
        ``(batch, d) float32``. On a GPU `images` must not change before that."""
        with inference(self.device, self.precision):
            pixels = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
            return self._fetch(self.towers.encode_images(pixels))

    def encode_prepared(self, images: np.ndarray) -> np.ndarray:
        """Embeddings of prepared images ``(n, *image_size, 3) uint8``, ``(n, d) float32``."""
        found = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), self.batch):
            some = images[start : start + self.batch]
            batch = self.new_batch()
            batch.numpy()[: len(some)] = some
            found[start : start + len(some)] = self.submit(batch)()[: len(some)]
        return found

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

    def encode_texts(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None, threads: int = 1
    ) -> np.ndarray:
        """Embeddings of captions, ``(n, d) float32``; equal captions are encoded once.

        Args:
            progress: called with (captions done, captions), in the caller's thread.
            threads: on a CPU, threads that run the tower, each with one core; numbers do not depend on it. 1 = the
                caller's, with as many cores as torch may use.

        Raises:
            ConfigError: it has no text tower.
        """
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        tokens = self.tokenizer(list(distinct))
        towers = self.towers
        assert isinstance(towers, Towers)
        context = tokens.shape[1]
        lengths = np.array([*(n for n in TEXT_LENGTHS if n < context), context])
        cut = lengths[np.searchsorted(lengths, towers.text_lengths(tokens))]
        features = np.empty((len(distinct), self.dim), np.float32)
        batches = [
            (members[start : start + self.text_batch], length)
            for length in np.unique(cut).tolist()
            for members in [np.flatnonzero(cut == length)]
            for start in range(0, len(members), self.text_batch)
        ]

        def submit(rows: np.ndarray, length: int) -> Wait:
            filled = tokens[np.resize(rows, self.text_batch)]  # the rows over again, to the end of the batch
            with inference(self.device, self.precision):
                return self._fetch(towers.encode_texts(filled, length))

        done = 0
        for (rows, _), found in zip(batches, self._in_turn(submit, batches, threads), strict=True):
            features[rows] = found[: len(rows)]
            done += len(rows)
            if progress:
                progress(done, len(tokens))
        return features[[distinct[text] for text in texts]]

    def _in_turn(
        self, submit: Callable[..., Wait], batches: Sequence[tuple[np.ndarray, int]], threads: int
    ) -> Iterator[np.ndarray]:
        """What each batch gives, in order: of threads on a CPU, of a queue on a GPU."""
        if self.device.type == "cpu" and threads > 1:
            with (
                one_thread(),
                ThreadPoolExecutor(threads, "curate-texts", initializer=torch.set_num_threads, initargs=(1,)) as pool,
            ):
                yield from pool.map(lambda batch: submit(*batch)(), batches)
            return
        waiting: deque[Wait] = deque()
        for batch in batches:
            waiting.append(submit(*batch))
            if self.device.type == "cpu" or len(waiting) > IN_FLIGHT:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()

    def _make_towers(self) -> ImageTower:
        return Towers(self.model, self.spec.preprocess)

    def _fetch(self, features: torch.Tensor) -> Wait:
        """Start to bring features to the host."""
        if features.device.type != "cuda":
            found = features.cpu().numpy()
            return lambda: found
        host = torch.empty(features.shape, dtype=torch.float32, pin_memory=True)
        host.copy_(features, non_blocking=True)
        there = torch.cuda.Event()
        there.record()

        def wait() -> np.ndarray:
            there.synchronize()
            return host.numpy()

        return wait
