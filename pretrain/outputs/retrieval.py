"""How well pictures and captions of a validation set find each other, under open_clip's names.

A rank counts what is more similar than the own partner, so similarities are worked through in runs of rows and a set of
a million pairs needs no more memory than one of a thousand. Where similarities are equal, the earlier row comes first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...errors import DataError

CHUNK = 1024  # rows whose similarities are in memory at once
RECALLS = (1, 5, 10)


def retrieval_metrics(image: torch.Tensor, text: torch.Tensor, chunk: int = CHUNK) -> dict[str, float]:
    """``image_to_text_{mean_rank,median_rank,R@1,R@5,R@10}`` and ``text_to_image_...``; recalls are fractions 0-1.

    Args:
        image, text: ``(n, d)`` features, L2-normalised; row i of one belongs to row i of the other.
        chunk: rows at a time; ``chunk * n`` similarities are held.

    Raises:
        DataError: there are no features, or some are not finite (which would look like perfect retrieval).
    """
    if not len(image) or not (torch.isfinite(image).all() and torch.isfinite(text).all()):
        raise DataError(f"the validation set's {len(image)} features are not all finite numbers; nothing can be ranked")
    found: dict[str, float] = {}
    for name, rows, columns in (("image_to_text", image, text), ("text_to_image", text, image)):
        ranks = partner_ranks(rows, columns, chunk).double()
        found[f"{name}_mean_rank"] = ranks.mean().item() + 1
        found[f"{name}_median_rank"] = _median(ranks)
        for k in RECALLS:
            found[f"{name}_R@{k}"] = (ranks < k).double().mean().item()
    return found


def partner_ranks(rows: torch.Tensor, columns: torch.Tensor, chunk: int = CHUNK) -> torch.Tensor:
    """For every row ``(n,) int64``: how many columns come before its own, which has its number."""
    rows, columns = rows.float(), columns.float()
    place = torch.arange(len(columns), device=columns.device)
    ranks = []
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        own = place[start : start + len(part), None]
        similar = part @ columns.T
        mine = similar.gather(1, own)
        ranks.append(((similar > mine) | ((similar == mine) & (place < own))).sum(1))
    return torch.cat(ranks).cpu()


def _median(ranks: torch.Tensor) -> float:
    """Of ranks from 0, as a rank from 1; the lower whole number where it lies between two."""
    ordered = ranks.sort().values
    n = len(ordered)
    return float((ordered[(n - 1) // 2] + ordered[n // 2]) // 2) + 1


def contrastive_loss(image: torch.Tensor, text: torch.Tensor, scale: float, batch: int) -> float:
    """``clip_val_loss``: mean over consecutive batches, weighted by their sizes, as open_clip's training reports it.

    Args:
        image, text: ``(n, d)``, L2-normalised.
        scale: factor on cosines.
        batch: samples per batch; the value depends on it, so only losses with the same one can be compared.
    """
    total = 0.0
    for start in range(0, len(image), batch):
        logits = scale * image[start : start + batch].float() @ text[start : start + batch].float().T
        own = torch.arange(len(logits), device=logits.device)
        total += (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)).item() / 2 * len(logits)
    return total / len(image)
