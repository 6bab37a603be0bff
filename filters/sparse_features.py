"""Sparse features of embeddings: which few of many directions a row points along most (a k-sparse code).

Set-level selection counts features, and dense coordinates cannot be counted; sparse codes of the same embeddings gave
11 points more in SDM's ablation (ICLR 2026). Three kinds of directions, all read alike, top k of ``x V' + b``:

* ``centroids`` of spherical k-means: concepts, a row having its k nearest. Needs a sample and no training loop.
* ``directions``: random ones. Nothing to fit; the weakest features, a control.
* ``autoencoder``: the encoder of a k-sparse autoencoder (Makhzani & Frey, 2014; Gao et al., arXiv 2406.04093), trained
  here for some steps on a sample. SDM's monotonicity loss is not part of it.

As in `kmeans.py` the matrix product only nominates: features that rounding cannot tell apart are compared again in
float64, so that a row's code does not depend on the rows beside it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import DataError
from .base import Part, Pool
from .draw import draw
from .kmeans import fit_centroids
from .nearest import compact, unit

Kind = Literal["centroids", "directions", "autoencoder"]
TILE_VALUES = 2**20  # products computed at a time: 4 MB, which stays in cache


@dataclass(frozen=True)
class Coder:
    """Directions, and how many of them a row's code holds.

    Attributes:
        vectors: ``(m, d) float32``; m = 0 for an empty pool.
        bias: ``(m,) float32``, added to the products.
        active: features per row.
        made_by: how they came about.
    """

    vectors: np.ndarray
    bias: np.ndarray
    active: int
    made_by: str

    def __len__(self) -> int:
        return len(self.vectors)

    def codes(self, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(u, active) int32``, features in ascending order, and the mask ``(n,) bool`` of the u rows that have any.

        Rows without direction (zero, NaN) have none.
        """
        rows, usable = unit(embeddings)
        return top_features(rows, self.vectors, self.bias, self.active), usable


def top_features(rows: np.ndarray, vectors: np.ndarray, bias: np.ndarray, active: int) -> np.ndarray:
    """The `active` features with the largest ``rows @ vectors.T + bias``, ``(n, active) int32``, ascending.

    Equal ones: the first. ``rows``: ``(n, d) float32`` unit rows.
    """
    m, d = vectors.shape
    if m <= active:
        return np.tile(np.arange(m, dtype=np.int32), (len(rows), 1))
    found = np.empty((len(rows), active), np.int32)
    size = float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)).max() + np.abs(bias).max())
    doubt = np.float32(2 * (d + 4) * np.finfo(np.float32).eps * size)  # twice the worst error of a float32 product
    step = max(64, TILE_VALUES // m)
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        tile = block @ vectors.T
        tile += bias
        last = np.partition(tile, m - active, axis=1)[:, m - active]
        near = tile >= (last - doubt)[:, None]
        unsure = near.sum(axis=1) > active
        out = found[start : start + step]
        out[~unsure] = np.nonzero(near[~unsure])[1].reshape(-1, active)
        if unsure.any():
            row, column = np.nonzero(near[unsure])
            exact = _products(block, np.flatnonzero(unsure)[row], vectors, column) + bias[column].astype(np.float64)
            exact = exact.astype(np.float32)
            order = np.lexsort((column, -exact, row))
            begins = np.searchsorted(row, np.arange(int(unsure.sum())))
            chosen = order[begins[:, None] + np.arange(active)]
            out[unsure] = np.sort(column[chosen], axis=1)
    return found


def _products(a: np.ndarray, i: np.ndarray, b: np.ndarray, j: np.ndarray) -> np.ndarray:
    """``<a[i], b[j]>``, ``(n,) float64``."""
    out = np.empty(len(i))
    step = max(1, TILE_VALUES // a.shape[1])  # collapsed features leave every one in doubt
    for start in range(0, len(i), step):
        pairs = slice(start, start + step)
        out[pairs] = np.einsum("ij,ij->i", a[i[pairs]].astype(np.float64), b[j[pairs]].astype(np.float64))
    return out


def fit_coder(pool: Pool, column: str, kind: Kind, features: int, active: int, steps: int, sample: int) -> Coder:
    """Make directions for the embeddings of a pool.

    Args:
        steps: of the autoencoder's training, or k-means iterations.
        sample: rows to learn from, at most; the autoencoder's pass through the driver, 2 bytes a number.

    Raises:
        DataError: too few rows have an embedding.
    """
    if kind == "centroids":
        centroids = fit_centroids(pool, column, features, steps, max(1, sample // features))
        bias = np.zeros(len(centroids), np.float32)
        return Coder(centroids.vectors, bias, active, f"k-means, {centroids.made_by}, {centroids.sample} rows")
    seed = _seed(kind, pool.seed)
    if kind == "directions":
        width = max(pool.map(_width, column), default=0)
        if not width:
            return Coder(np.empty((0, 0), np.float32), np.empty(0, np.float32), active, "")
        vectors, _ = unit(np.random.default_rng(seed).standard_normal((features, width)).astype(np.float32))
        return Coder(vectors, np.zeros(features, np.float32), active, "random directions")
    drawn = draw(pool, sample, pool.seed, "sparse_features", _usable, (column,), whole=True)
    if not drawn.count:
        if rows := sum(pool.map(_length)):
            raise DataError(f"column {column!r} has no embedding in any of {rows} rows; was its encoder run?")
        return Coder(np.empty((0, 0), np.float32), np.empty(0, np.float32), active, "")
    order = np.lexsort((drawn.uids["f1"], drawn.uids["f0"]))
    vectors, bias, made_by = pool.call(
        train_autoencoder, drawn.values["embedding"][order], features, active, steps, seed
    )
    return Coder(vectors, bias, active, made_by)


def _seed(purpose: str, seed: int) -> int:
    digest = hashlib.blake2b(f"sparse_features/{purpose}\0{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _length(part: Part) -> int:
    return len(part)


def _usable(part: Part, column: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rows = part.array(column)
    norm = np.einsum("ij,ij->i", rows, rows, dtype=np.float64) if len(rows) else np.empty(0)
    return np.isfinite(norm) & (norm > 0), {"embedding": compact(rows)}


def _width(part: Part, column: str) -> int:
    return part.array(column).shape[1] if len(part) else 0


def train_autoencoder(
    points: np.ndarray, features: int, active: int, steps: int, seed: int, batch: int = 1024, rate: float = 1e-3
) -> tuple[np.ndarray, np.ndarray, str]:
    """Train a k-sparse autoencoder on ``(n, d)`` rows that all have a direction; a pure function of its arguments.

        z = top-k(relu((x - c) W' + b));  x' = z D + c;  loss = |x - x'|^2;  Adam; rows of D kept at length 1

    D and W begin as rows of the data, so that few features are dead from the start.

    Returns:
        ``(features, d) float32`` encoder directions, ``(features,) float32`` biases (the centre c folded in), and how
        it was made.
    """
    import torch

    rows, _ = unit(points)
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rows)
    centre = x.mean(0)
    start = torch.from_numpy(rows[rng.choice(len(rows), features, replace=len(rows) < features)]) - centre
    start = start + 0.01 * torch.from_numpy(rng.standard_normal(start.shape).astype(np.float32))
    start = start / start.norm(dim=1, keepdim=True).clamp_min(1e-6)
    encode, decode = (start.clone().requires_grad_() for _ in range(2))
    bias, offset = torch.zeros(features, requires_grad=True), centre.clone().requires_grad_()
    optimizer = torch.optim.Adam([encode, decode, bias, offset], lr=rate)
    error = float("nan")
    for _ in range(steps):
        chosen = x[torch.from_numpy(rng.integers(0, len(rows), min(batch, len(rows))))]
        value, place = ((chosen - offset) @ encode.T + bias).topk(active, dim=1)
        hidden = torch.zeros(len(chosen), features).scatter(1, place, value.relu())
        loss = (chosen - offset - hidden @ decode).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        error = loss.item()
        optimizer.step()
        with torch.no_grad():
            decode /= decode.norm(dim=1, keepdim=True).clamp_min(1e-6)
    folded = bias.detach() - offset.detach() @ encode.detach().T
    made_by = f"autoencoder, torch {torch.__version__}, {len(rows)} rows, {steps} steps, error {error:.4g}"
    return encode.detach().numpy().copy(), folded.numpy().copy(), made_by
