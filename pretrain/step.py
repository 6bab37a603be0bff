"""One batch -> gradients: forward, loss, backward, for batches of any size.

A batch that does not fit is cut into pieces of `micro_batch` samples. A contrastive loss needs the features of all of
them at once, so they are computed twice: without gradients for the loss, whose gradient with respect to the features is
kept, and again, piece by piece, to carry that gradient to the weights (Gao et al., "Scaling deep contrastive learning
batch size under memory limited setup", RepL4NLP 2021). The result is the gradient of the whole batch, for one more
forward pass. A loss that looks at each sample by itself needs no second pass.

Random layers are seeded by (step, piece), so both passes of a piece drop the same units; batch statistics of the first
pass are not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from .data.batch import Batch
from .features import Features, Labels, TeacherFeatures
from .models.network import Outputs
from .objectives.base import Objective, couples_samples
from .processes.batch_norm import SharedBatchNorm
from .processes.parallel import Wrapped
from .processes.world import World
from .teachers import Teachers, joined

Terms = dict[str, torch.Tensor]


class Step:
    """Computes the gradients of batches.

    Attributes:
        passes: forward passes that the network makes of each sample, its own backward's included.
    """

    def __init__(
        self,
        wrapped: Wrapped,
        objective: Objective,
        world: World,
        device: torch.device,
        arithmetic: Callable[[], AbstractContextManager[Any]],
        prepare: Callable[[Batch, int, slice], None],
        reads_text: bool = True,
        micro_batch: int = 0,
        teachers: Teachers | None = None,
        scale_loss: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
        learns_text: bool = True,
    ) -> None:
        """
        Args:
            arithmetic: context of forward passes (autocast).
            prepare: called with the batch, the number of a piece and its samples before each forward pass.
            reads_text: whether captions go through the network when it is measured.
            micro_batch: samples of a forward pass; 0 = all that this process has.
            scale_loss: applied to the loss before backward (fp16's gradient scaler).
            learns_text: whether they do when it learns; not where nothing in the loss looks at them.
        """
        self._wrapped, self._objective, self._world, self._device = wrapped, objective, world, device
        self._arithmetic, self._prepare, self._reads_text = arithmetic, prepare, reads_text
        self._micro_batch, self._teachers, self._scale_loss = micro_batch, teachers, scale_loss
        self._learns_text = reads_text and learns_text
        self._labelled: int | None = None
        self._least = 2 if _needs_two(wrapped.network) else 1
        self._norms = [m for m in wrapped.network.modules() if isinstance(m, SharedBatchNorm)]

    def gradients(self, batch: Batch) -> Terms:
        """Add the batch's gradients to the weights' `grad`, summed over processes.

        Returns:
            This process's part of each term of the loss, detached, unscaled.
        """
        largest = -(-batch.total // self._world.size)  # all processes make equally many passes
        pieces = _pieces(len(batch.images), self._micro_batch, largest, self._least)
        self._labelled = self._count_labelled(batch)
        if len(pieces) == 1:
            features = self._features(self._forward(batch, 0, pieces[0]), batch, pieces[0])
            terms = self._objective.terms(features, self._world)
            self._backward(terms)
        elif couples_samples(self._objective):
            terms = self._cached(batch, pieces)
        else:
            terms = {}
            for i, piece in enumerate(pieces):
                with self._wrapped.without_exchange(i + 1 < len(pieces)):
                    features = self._features(self._forward(batch, i, piece), batch, piece)
                    some = self._objective.terms(features, self._world)
                    self._backward(some)
                terms = {name: terms.get(name, 0) + term.detach() for name, term in some.items()}
        self._wrapped.finish_gradients()
        return {name: term.detach() for name, term in terms.items()}

    def measure(self, batch: Batch) -> tuple[Features, Terms]:
        """Features and terms of the loss without gradients, in one pass."""
        self._labelled = self._count_labelled(batch)
        with torch.no_grad():
            whole = slice(0, len(batch.images))
            out = self._forward(batch, 0, whole, self._wrapped.network, self._reads_text)
            features = self._features(out, batch, whole, self._reads_text)
            return features, self._objective.terms(features, self._world)

    def _count_labelled(self, batch: Batch) -> int | None:
        """Samples of the whole batch that have a label; None if the data has none."""
        if batch.label_rows is None:
            return None
        own = len(np.unique(batch.label_rows))
        return own if self._world.size == 1 else int(self._world.sum(torch.tensor(own, device=self._device)))

    def _cached(self, batch: Batch, pieces: list[slice]) -> Terms:
        with torch.no_grad(), _unrecorded_statistics(self._wrapped.network):
            first = [self._forward(batch, i, piece) for i, piece in enumerate(pieces)]
        teachers = self._teach(batch, pieces)
        leaves: Outputs = {}
        for name in first[0]:
            alone = first[0][name].ndim == 0
            whole = first[0][name] if alone else torch.cat([out[name] for out in first])
            leaves[name] = whole.detach().requires_grad_(whole.is_floating_point())
        terms = self._objective.terms(
            self._features(leaves, batch, slice(0, len(batch.images)), teachers=teachers), self._world
        )
        self._backward(terms)
        used = [name for name, leaf in leaves.items() if leaf.grad is not None]
        for i, piece in enumerate(pieces):
            last = i + 1 == len(pieces)
            with self._wrapped.without_exchange(not last):
                out = self._forward(batch, i, piece)
                rows = [
                    name for name in used if out[name].ndim > 0 and out[name].requires_grad
                ]  # a tower may be locked
                tensors, grads = [out[name] for name in rows], [leaves[name].grad[piece] for name in rows]  # type: ignore[index]
                for name in used:
                    if (
                        out[name].ndim == 0 and out[name].requires_grad
                    ):  # once is enough: it does not depend on the samples
                        tensors.append(out[name])
                        grads.append(leaves[name].grad * float(last))  # type: ignore[operator]
                torch.autograd.backward(tensors, grads)
        return terms

    def _backward(self, terms: Terms) -> None:
        loss = torch.stack(list(terms.values())).sum() if len(terms) > 1 else next(iter(terms.values()))
        self._scale_loss(loss * self._wrapped.factor if self._wrapped.factor != 1 else loss).backward()

    def _forward(
        self, batch: Batch, number: int, piece: slice, module: nn.Module | None = None, reads_text: bool | None = None
    ) -> Outputs:
        """Outputs of some of the batch's samples; those of captions are brought into a row per sample."""
        images = torch.from_numpy(batch.images[piece]).permute(0, 3, 1, 2)
        some = piece != slice(0, len(batch.images))
        empty = not len(images)  # a process without samples still takes part in every exchange
        if empty:
            images = torch.zeros((1, 3, *batch.images.shape[1:3]), dtype=torch.uint8)
        tokens = place = None
        if self._learns_text if reads_text is None else reads_text:
            tokens, place = batch.tokens, np.maximum(batch.caption[piece], 0)
            if not len(tokens):  # no sample has a caption; the text tower still takes part
                tokens = np.zeros((1, max(1, tokens.shape[1])), np.int64)
            if some:
                here, place = np.unique(place, return_inverse=True)
                tokens = tokens[here] if len(here) else tokens[:1]
        self._prepare(batch, number, piece)
        for norm in self._norms:
            norm.counts = not empty
        with self._arithmetic():
            out = (module or self._wrapped.module)(images, tokens)
        if place is not None and (some or len(out["text"]) < len(images)):
            out["text"] = out["text"][torch.from_numpy(place).to(self._device)]
        if empty:
            out = {name: value[:0] if value.ndim else value for name, value in out.items()}
        return out

    def _teach(self, batch: Batch, pieces: list[slice]) -> list[TeacherFeatures]:
        """What the teachers say about all of this process's samples, piece by piece."""
        if self._teachers is None:
            return []
        said = [self._teachers(batch, piece) for piece in pieces]
        return [joined(parts) for parts in zip(*said, strict=True)]

    def _features(
        self,
        out: Outputs,
        batch: Batch,
        piece: slice,
        reads_text: bool | None = None,
        teachers: list[TeacherFeatures] | None = None,
    ) -> Features:
        captioned = labels = None
        if (self._learns_text if reads_text is None else reads_text) and (batch.caption < 0).any():
            captioned = torch.from_numpy(batch.caption[piece] >= 0).to(self._device)
        if batch.label_rows is not None and batch.label_ids is not None:
            inside = (batch.label_rows >= piece.start) & (batch.label_rows < piece.stop)
            rows, ids = batch.label_rows[inside] - piece.start, batch.label_ids[inside]
            weights = None if batch.label_weights is None else torch.from_numpy(batch.label_weights[inside])
            labels = Labels(
                torch.from_numpy(rows).to(self._device),
                torch.from_numpy(ids).to(self._device),
                None if weights is None else weights.to(self._device),
            )
        if teachers is None:
            teachers = self._teachers(batch, piece) if self._teachers else []
        for i, teacher in enumerate(teachers):
            teacher.projected_image = out.get(f"projected{i}")
        return Features(
            image=out["image"],
            text=out.get("text"),
            scale=out["scale"],
            first=batch.first + piece.start,
            total=batch.total,
            captioned=captioned,
            logits=out.get("logits"),
            bias=out.get("bias"),
            labels=labels,
            labelled_total=self._labelled,
            teachers=teachers,
        )


def _needs_two(network: nn.Module) -> bool:
    """Whether one sample alone has no batch statistics. `SharedBatchNorm` sees those of other processes."""
    modules = network.modules()
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) and not isinstance(m, SharedBatchNorm) for m in modules)


def _pieces(count: int, micro_batch: int, largest: int, least: int = 1) -> list[slice]:
    """Even parts of ``0..count-1``, of `micro_batch` at most; one if there is no limit. There are as many as a process
    with `largest` samples needs, so some may be empty. None has fewer than `least`, if need be by more in others."""
    parts = max(1, -(-largest // micro_batch)) if micro_batch else 1
    if least > 1:
        parts = max(1, min(parts, count // least))
    return [slice(a, b) for a, b in pairwise(count * i // parts for i in range(parts + 1))]


@contextmanager
def _unrecorded_statistics(network: nn.Module) -> Iterator[None]:
    """Context of a forward pass in training mode that leaves the running means of batch norm as they are."""
    norms: list[Any] = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counted
