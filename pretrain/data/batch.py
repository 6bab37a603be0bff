"""What the loader gives for each step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Batch:
    """One step's samples of this process. The arrays are overwritten by later batches.

    Attributes:
        step: number of the step, from 0.
        first: place of the first sample in the whole batch.
        total: samples in the whole batch, of all processes.
        samples: ``(b,) int64``, their numbers in the dataset, replacements included.
        images: ``(b, h, w, 3) uint8``, cropped, resized and augmented, not normalised.
        tokens: ``(m, length) int64``, the distinct captions; ``(0, 0)`` without a tokenizer.
        texts: these captions.
        caption: ``(b,) int64``, row of `tokens` of each sample; -1 = it has no caption.
        label_rows: ``(k,) int64`` ascending, which sample each label is of; None if the data set has no labels.
        label_ids: ``(k,) int64``, which class.
        replaced: samples of this batch that stand in for a corrupt one.
        label_weights: ``(k,) float32``, how much of each class; None = 1.
    """

    step: int
    first: int
    total: int
    samples: np.ndarray
    images: np.ndarray
    tokens: np.ndarray
    texts: list[str]
    caption: np.ndarray
    label_rows: np.ndarray | None
    label_ids: np.ndarray | None
    replaced: int
    label_weights: np.ndarray | None = None
