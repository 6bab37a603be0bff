"""SigLIP's loss: for each pair of the batch, does this caption belong to this image? No pair knows of another.

    x_ij = scale * image_i . text_j + bias
    loss = 1 / N  sum_ij softplus(-y_ij x_ij)      y_ij = 1 for an image's own caption, else -1; N pairs of the batch

Source: Zhai et al., "Sigmoid loss for language image pre-training", ICCV 2023, section 3.1; algorithm in section 3.3.

N counts the whole batch. open_clip divides a process's rows by that process's batch and lets DDP take the mean of the
gradients over processes: the same, as long as shares are equal; here they need not be.

Value and gradient come from one pass over chunks of rows (3 matrix products, and no B x B matrix). Between processes
either all captions are gathered, or blocks of them go around a ring, each followed by its gradient, which is complete
when it is home again: the same bytes, and memory for one block instead of the whole batch's captions, but as many steps
as there are processes. `both` ways at once uses both directions of the links: half of each block goes either way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F

from ..features import Features
from ..processes.world import World, share
from .known_gradient import known_gradient
from .pairs import Pairs, Piece, captioned, in_float32, texts_of

Exchange = Literal["gather", "ring", "both"]


class SigLipObjective:
    """SigLIP's loss of a batch.

    Args:
        groups: consecutive runs of the batch within which pairs are compared (`pairs.py`).
        chunk: images compared at a time; memory is ``chunk x captions`` floats, about three times.
        exchange: how captions travel; with groups always a gather, of no more than is needed.
    """

    name = "siglip"

    def __init__(self, groups: int = 1, chunk: int = 1024, exchange: Exchange = "gather") -> None:
        self.groups, self.chunk, self.exchange = groups, chunk, exchange

    def terms(self, features: Features, world: World) -> dict[str, torch.Tensor]:
        """``{"siglip": part}``, a mean over the captioned samples of the whole batch."""
        pairs = Pairs(features, world, self.groups, self.chunk)
        image, text = in_float32(features.image), in_float32(texts_of(features))
        scale = in_float32(features.scale)
        bias = torch.zeros_like(scale) if features.bias is None else in_float32(features.bias)
        around = self.exchange != "gather" and self.groups == 1 and world.size > 1
        with_gradient = torch.is_grad_enabled()
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            sums = _Sums.of(image.detach(), scale.detach(), bias.detach(), with_gradient)
            kept = pairs.captions(text.detach())
            if around:
                d_text = _around(sums, pairs, kept, both=self.exchange == "both")
            else:
                columns = pairs.collect(kept)
                seen = torch.zeros_like(columns)
                for piece in pairs.pieces():
                    sums.add(piece, columns, pairs.columns, seen, own=True)
                d_text = pairs.give_back(seen) if with_gradient else seen
            value = sums.value / pairs.count
            if not with_gradient:
                return {self.name: value}
            factor = sums.scale / pairs.count
            gradients = [
                (image, sums.d_image * factor),
                (text, d_text * factor),
                (scale, sums.d_scale / pairs.count),
                (bias, sums.d_bias / pairs.count),
            ]
        return {self.name: known_gradient(value, gradients)}

    def counts(self, features: Features) -> dict[str, torch.Tensor]:
        """This process's captioned samples."""
        return {self.name: captioned(features)}


@dataclass
class _Sums:
    """Loss and gradients so far, not yet divided by N; those of features not yet multiplied by the scale."""

    image: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor
    value: torch.Tensor
    d_image: torch.Tensor
    d_scale: torch.Tensor
    d_bias: torch.Tensor
    with_gradient: bool

    @classmethod
    def of(cls, image: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, with_gradient: bool) -> _Sums:
        nothing = torch.zeros_like(scale)
        d_image = torch.zeros_like(image)
        return cls(image, scale, bias, nothing, d_image, nothing.clone(), nothing.clone(), with_gradient)

    def add(self, piece: Piece, text: torch.Tensor, columns: torch.Tensor, d_text: torch.Tensor, own: bool) -> None:
        """Compare a piece's images with ``text[piece.columns]``.

        Args:
            text, d_text: ``(w, d)``, captions, and where to add their gradient.
            columns: ``(w,)``, which of them are there, see `Pairs`.
            own: whether the images' own captions are among them, at `piece.own`.
        """
        rows, block = self.image[piece.rows], text[piece.columns]
        logits = torch.addmm(columns[piece.columns] + self.bias, rows * self.scale, block.T)
        at = torch.arange(len(logits), device=logits.device), piece.own
        if own:
            logits[at] *= -1  # then all pairs alike ask for a small logit
        self.value += F.softplus(logits, threshold=40).sum()
        if not self.with_gradient:
            return
        slopes = logits.sigmoid_()
        if own:
            slopes[at] *= -1
        towards = slopes @ block
        self.d_image[piece.rows] += towards
        d_text[piece.columns].addmm_(slopes.T, rows)
        self.d_scale += (rows * towards).sum()
        self.d_bias += slopes.sum()


def _around(sums: _Sums, pairs: Pairs, text: torch.Tensor, both: bool) -> torch.Tensor:
    """All blocks of captions pass by; returns the gradient of this process's own, ``(b, d)``.

    While a block is compared, the next one is already on its way.
    """
    world, total = pairs.world, pairs.total
    there, pieces = pairs.columns, [replace(piece, own=piece.rows) for piece in pairs.pieces()]  # own: in the own block
    start, stop = world.share(total)
    most = -(-total // world.size)
    middle = most // 2 if both else most
    lanes = [(1, 0, middle), (-1, middle, most)]  # how many places on, which rows of a block
    lanes = [lane for lane in lanes if lane[1] < lane[2]]
    padded = text.new_zeros((most, text.shape[1]))
    padded[: len(text)] = text
    d_own = torch.zeros_like(text)
    for piece in pieces:
        sums.add(replace(piece, columns=slice(0, stop - start)), text, there[start:stop], d_own, own=True)

    blocks = [padded[low:high] for _, low, high in lanes]
    gradients = [torch.zeros_like(block) for block in blocks]
    next_blocks = world.shift(*((block, places) for block, (places, *_) in zip(blocks, lanes, strict=True)))
    for step in range(1, world.size):
        blocks = next_blocks()
        if step + 1 < world.size:
            next_blocks = world.shift(*((block, places) for block, (places, *_) in zip(blocks, lanes, strict=True)))
        for (places, low, high), block, gradient in zip(lanes, blocks, gradients, strict=True):
            first, last = share(total, (world.rank - places * step) % world.size, world.size)
            columns = there[min(first + low, last) : min(first + high, last)]
            for piece in pieces:
                sums.add(replace(piece, columns=slice(0, len(columns))), block, columns, gradient, own=False)
        if sums.with_gradient:  # a block's gradient follows it, and from the last process it goes home
            sent = world.shift(*((g, places) for g, (places, *_) in zip(gradients, lanes, strict=True)))
            gradients = sent()
    if sums.with_gradient:
        d_own += torch.cat(gradients)[: len(text)]
    return d_own
