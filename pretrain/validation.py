"""The validation set of a training: the recipe's own loss, and how well pictures and captions find each other.

Pictures are prepared as for evaluation (no random crop), in the data set's order, in batches of the recipe's size; so
losses are comparable along a training, and between trainings with the same batch size. Every process works on its share
of each batch. Pictures that cannot be decoded are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from ..errors import DataError
from ..shards.images.error import ImageError
from ..shards.images.image import decode_rgb
from .assembly import Assembly
from .data.batch import Batch
from .data.samples import Samples
from .data.transform import for_evaluation
from .outputs.retrieval import retrieval_metrics
from .processes.world import World
from .state.snapshots import MEASURE
from .step import Step


class Validation:
    """Measures a network in training on a data set of its own.

    Args:
        samples: the data set; opened with the same captions and labels as the training's.
        batch_size: samples per batch of the loss.
    """

    def __init__(self, samples: Samples, assembly: Assembly, step: Step, world: World, batch_size: int) -> None:
        self._samples, self._assembly, self._step, self._world = samples, assembly, step, world
        self._batch_size = min(batch_size, len(samples))

    def measure(self) -> dict[str, float]:
        """``clip_val_loss`` (the loss of the recipe, whatever it is), terms of it if there are several, retrieval under
        open_clip's names where there are captions, ``top1`` where there are labels (the best class is one of the
        sample's), and ``num_samples``.

        Raises:
            DataError: no image can be decoded.
        """
        sums: dict[str, float] = {}
        images: list[torch.Tensor] = []
        texts: list[torch.Tensor] = []
        seen = right = labelled = 0.0
        for batch in self._batches():
            features, terms = self._step.measure(batch)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + float(self._world.sum(term)) * batch.total
            seen += batch.total
            if features.text is not None:
                there = self._world.collect(torch.from_numpy(batch.caption >= 0).to(features.text.device), batch.total)
                images.append(self._world.collect(features.image, batch.total)[there].cpu())
                texts.append(self._world.collect(features.text, batch.total)[there].cpu())
            if features.logits is not None and features.labels is not None:
                best = features.logits.argmax(1)[features.labels.rows]
                hit = features.labels.rows[best == features.labels.ids]  # labels of a sample are different classes
                tried = features.labels.rows.unique()
                counts = self._world.sum(torch.tensor([len(hit), len(tried)], device=best.device)).tolist()
                right, labelled = right + counts[0], labelled + counts[1]
        if not seen:
            raise DataError("no image of the validation set can be decoded")
        means = {name: total / seen for name, total in sums.items()}
        found = {MEASURE: math.fsum(means.values())}
        if len(means) > 1:
            found |= {f"{MEASURE}/{name}": value for name, value in means.items()}
        if sum(map(len, images)):
            found |= retrieval_metrics(torch.cat(images), torch.cat(texts))
        if labelled:
            found["top1"] = right / labelled
        return {**found, "num_samples": int(seen)}

    def _batches(self) -> Iterator[Batch]:
        """Batches of this process's share; the last one is smaller."""
        count = len(self._samples)
        for number, start in enumerate(range(0, count, self._batch_size)):
            pictures: list[np.ndarray] = []
            places: list[int] = []
            for i in range(start, min(start + self._batch_size, count)):
                try:
                    image = decode_rgb(self._samples.image(i))
                except ImageError:
                    continue
                pictures.append(for_evaluation(image, self._assembly.preprocess))
                places.append(i)
            if not pictures:
                continue
            first, stop = self._world.share(len(pictures))
            samples = np.array(places[first:stop], np.int64)
            size = self._assembly.preprocess.size
            stacked = np.stack(pictures[first:stop]) if stop > first else np.empty((0, *size, 3), np.uint8)
            yield self._batch(number, first, len(pictures), samples, stacked)

    def _batch(self, number: int, first: int, total: int, samples: np.ndarray, images: np.ndarray) -> Batch:
        distinct: dict[str, int] = {}
        caption = np.full(len(samples), -1, np.int64)
        tokens = np.zeros((0, 0), np.int64)
        if self._assembly.tokenizer is not None:
            for at, text in enumerate(self._samples.texts(samples, 0, samples)):
                if text is not None:
                    caption[at] = distinct.setdefault(text, len(distinct))
            tokens = self._assembly.tokenizer(list(distinct))
        rows, ids = self._samples.labels(samples)
        return Batch(
            step=number,
            first=first,
            total=total,
            samples=samples,
            images=images,
            tokens=tokens,
            texts=list(distinct),
            caption=caption,
            label_rows=rows,
            label_ids=ids,
            replaced=0,
        )
