"""Cross entropies of a batch's images against its captions and of captions against images, value and gradient at once.

    s_ij = scale * image_i . text_j        rows: images, columns: captions, within one group (`pairs.py`)
    loss = 1 / 2N { sum_i [ log sum_j exp s_ij - sum_j t_ij s_ij ] + sum_j [ log sum_i exp s_ij - sum_i u_ij s_ij ] }
    d loss / d s_ij = (p_ij - t_ij + q_ij - u_ij) / 2N       p, q: softmax over the row, over the column

t and u are 1 for an image's own caption, else 0 (CLIP), or the same softmaxes of a teacher's similarities.

Both directions come from one matrix, of which a process has the rows of its own images. So only captions travel, and
of the columns their maxima and sums of exponentials: half the bytes of gathering both sides, and 4 matrix products
instead of 6 (3, where one chunk holds all rows). Of the matrix one chunk of rows exists at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .known_gradient import known_gradient
from .pairs import Pairs, Piece, absent


@dataclass
class Similarity:
    """One model's similarities between this process's images and the captions of its window.

    Attributes:
        image: ``(b, d)``; text: ``(w, d)``; scale: ``()``.
        maxima, sums: ``(w,)``, of every column over all its rows: the largest, and the sum of ``exp(s - maximum)``.
        kept: the matrix, if one piece holds all of it.
    """

    image: torch.Tensor
    text: torch.Tensor
    scale: torch.Tensor
    maxima: torch.Tensor = field(init=False)
    sums: torch.Tensor = field(init=False)
    kept: torch.Tensor | None = None

    def logits(self, piece: Piece, columns: torch.Tensor) -> torch.Tensor:
        """``(n, columns of the piece)``."""
        if self.kept is not None:
            logits, self.kept = self.kept, None
            return logits
        rows, text = self.image[piece.rows] * self.scale, self.text[piece.columns]
        return torch.addmm(columns[piece.columns], rows, text.T)


def in_batch_softmax(
    pairs: Pairs,
    image: torch.Tensor,
    text: torch.Tensor,
    scale: torch.Tensor,
    teacher: tuple[torch.Tensor, torch.Tensor, float] | None = None,
) -> torch.Tensor:
    """This process's part of the loss, ``()``, differentiable in `image`, `text` and `scale`.

    Args:
        image, text: ``(b, d)``, this process's features, L2-normalised.
        scale: factor on the cosines.
        teacher: image and text features ``(b, e)`` and scale of the model to agree with; None = own pairs are right.
    """
    with_gradient = torch.is_grad_enabled()
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        student = Similarity(image.detach(), pairs.collect(pairs.captions(text.detach())), scale.detach())
        sides = [student]
        if teacher is not None:
            teacher_scale = torch.as_tensor(teacher[2], device=image.device, dtype=image.dtype)
            guide = pairs.collect(pairs.captions(teacher[1].detach()).to(image.dtype))
            sides.append(Similarity(teacher[0].detach().to(image.dtype), guide, teacher_scale))
        pieces = list(pairs.pieces())
        _column_sums(pairs, pieces, sides)
        value = image.new_zeros(())
        d_image, d_text = torch.zeros_like(student.image), torch.zeros_like(student.text)
        d_scale = torch.zeros_like(student.scale)
        for piece in pieces:
            part, d_logits = _piece_loss(pairs, piece, sides)
            value += part
            if with_gradient:
                rows = student.image[piece.rows]
                towards = d_logits @ student.text[piece.columns]
                d_image[piece.rows] = towards
                d_text[piece.columns].addmm_(d_logits.T, rows)
                d_scale += (rows * towards).sum()
            del d_logits  # before the next piece's logits
        halves = 2 * pairs.count
        value /= halves
        if not with_gradient:
            return value
        d_text = pairs.give_back(d_text)
        factor = student.scale / halves
        gradients = [(image, d_image.mul_(factor)), (text, d_text * factor), (scale, d_scale / halves)]
    return known_gradient(value, gradients)


def _column_sums(pairs: Pairs, pieces: list[Piece], sides: list[Similarity]) -> None:
    """Fill in every side's `maxima` and `sums`, over the rows of all processes."""
    lowest = 2 * absent(pairs.columns.dtype)
    for side in sides:
        side.maxima = torch.full_like(pairs.columns, lowest)
        side.sums = torch.zeros_like(pairs.columns)
        for piece in pieces:
            logits = side.logits(piece, pairs.columns)
            before = side.maxima[piece.columns]
            maxima = torch.maximum(before, logits.amax(0))
            sums = side.sums[piece.columns] * torch.exp(before - maxima)
            side.sums[piece.columns] = sums + torch.exp_(logits - maxima).sum(0)
            side.maxima[piece.columns] = maxima
            if len(pieces) == 1:
                side.kept = logits
    if not pairs.alone:
        here = slice(*pairs.window)
        everyones = torch.full(
            (len(sides), pairs.total), lowest, device=pairs.columns.device, dtype=pairs.columns.dtype
        )
        everyones[:, here] = torch.stack([side.maxima for side in sides])
        maxima = pairs.world.max(everyones)
        everyones.zero_()
        for row, side in enumerate(sides):
            everyones[row, here] = side.sums * torch.exp(side.maxima - maxima[row, here])
        sums = pairs.world.sum(everyones)
        for row, side in enumerate(sides):
            side.maxima, side.sums = maxima[row, here], sums[row, here]
    for side in sides:  # columns of captions that are not there: softmax 0
        side.sums = side.sums.masked_fill(pairs.columns != 0, torch.inf)


def _piece_loss(pairs: Pairs, piece: Piece, sides: list[Similarity]) -> tuple[torch.Tensor, torch.Tensor]:
    """2N times the piece's part of the loss, and of its gradient with respect to the student's logits."""
    student = sides[0]
    logits = student.logits(piece, pairs.columns)
    maxima, sums = student.maxima[piece.columns], student.sums[piece.columns]
    row_maxima = logits.amax(1, keepdim=True)
    rows = torch.exp_(logits - row_maxima)
    row_sums = rows.sum(1, keepdim=True)
    rows /= row_sums
    # Differences first and logarithms added to them: near 0 the loss keeps its digits at any scale.
    value = row_sums.log().sum() + sums[piece.own].log().sum()
    if len(sides) == 1:
        at = torch.arange(len(logits), device=logits.device), piece.own
        own = logits[at]
        value += (row_maxima[:, 0] - own).sum() + (maxima[piece.own] - own).sum()
        rows[at] -= 2
    else:
        by_row, by_column = _softmaxes(sides[1], piece, pairs.columns)
        value += (by_row * (row_maxima - logits)).sum() + (by_column * (maxima - logits)).sum()
        rows -= by_row
        rows -= by_column
    rows += logits.sub_(maxima).exp_().div_(sums)
    return value, rows


def _softmaxes(side: Similarity, piece: Piece, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a teacher's similarities, over rows and over columns."""
    logits = side.logits(piece, columns)
    rows = torch.softmax(logits, 1)
    return rows, logits.sub_(side.maxima[piece.columns]).exp_().div_(side.sums[piece.columns])
