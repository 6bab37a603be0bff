"""Batches whose pictures and labels are mixed (`mixup.py`), whatever the number of processes.

Pairs that a process's run of samples cuts in two are loaded whole and mixed; then only the own samples are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..features import Labels
from .batch import Batch
from .mix_options import MixOptions
from .mixup import mix_images, mix_labels, part_of, plan


@dataclass(frozen=True)
class Mixing:
    """How the batches of a training are mixed.

    Attributes:
        seed: of the training.
        shared: whether the labels of a sample share one target (softmax), see `mixup.mix_labels`.
    """

    options: MixOptions
    seed: int
    shared: bool = True

    def __call__(self, batch: Batch, first: int, stop: int) -> Batch:
        """Samples ``first..stop-1`` of the whole batch, out of a run of whole pairs, after mixing.

        Pairs are mixed that have labels and no captions, which a mixed picture would not show.
        """
        if batch.label_rows is None or batch.label_ids is None:
            raise ValueError("a batch without labels cannot be mixed")
        if first == stop:
            return replace(batch, first=first)
        count = len(batch.images)
        may = (np.bincount(batch.label_rows, minlength=count) > 0) & (batch.caption < 0)
        height, width = batch.images.shape[1:3]
        made = plan(self.options, self.seed, batch.step, batch.first, may, (height, width))
        images = mix_images(torch.from_numpy(batch.images).permute(0, 3, 1, 2), made)
        batch.images[:] = images.permute(0, 2, 3, 1).numpy()
        labels = Labels(torch.from_numpy(batch.label_rows), torch.from_numpy(batch.label_ids))
        own = slice(first - batch.first, stop - batch.first)
        labels = part_of(mix_labels(labels, made, self.shared), own.start, own.stop)
        return replace(
            batch,
            first=first,
            samples=batch.samples[own],
            images=batch.images[own],
            caption=batch.caption[own],
            label_rows=labels.rows.numpy(),
            label_ids=labels.ids.numpy(),
            label_weights=None if labels.weights is None else labels.weights.numpy(),
        )
