"""`norm_sim`: how much an image has to do with a target set: NormSim (arXiv 2405.19547, section 4), over images.

    p = 2    sqrt(sum_t <x, t>^2)  =  sqrt(x' L x),  L = sum_t t t'        near to many targets
    p = inf  max_t |<x, t>|                                               near to one

For p = 2 only the d x d matrix L is kept, summed in float64 over blocks of target rows that do not depend on how the
target set is cut into parts. For p = inf the targets are read again for every part of the pool, block by block; that is
about a hundredth of the time of the products, 2 n_targets d operations an image or 6,000 core-hours for 10^9 images
against ImageNet. There float32 products only nominate; the pairs that rounding cannot tell apart are computed again in
float64, so a value does not depend on tiles and parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from ...errors import ConfigError, DataError
from ...shards import storage
from ..base import SCORERS, Columns, Context, Part, Scorer
from ..directions import unit_blocks

BLOCK = 4096
TILE_ROWS, TILE_COLUMNS = 1024, 512


@dataclass(frozen=True)
class Targets:
    """Where the target rows are; picklable, and read block by block.

    Attributes:
        columns, parts, column: of a target set: its files, how many parts, which embedding.
        file: a ``.npy`` file instead.
    """

    columns: Columns | None
    parts: int
    column: str
    file: str | None

    def blocks(self) -> Iterator[np.ndarray]:
        """``(b, d) float32`` rows that have an embedding, always `BLOCK` of them but in the last block.

        Raises:
            DataError, ConfigError: dimensions differ between parts, or the file is not ``(n, d)`` floats.
        """
        waiting: list[np.ndarray] = []
        count = 0
        for rows in self._pieces():
            if waiting and rows.shape[1] != waiting[0].shape[1]:
                raise DataError(f"target {self.column}: parts of {waiting[0].shape[1]} and {rows.shape[1]} dimensions")
            waiting.append(rows)
            count += len(rows)
            if count >= BLOCK:
                merged = np.concatenate(waiting)
                for start in range(0, count - BLOCK + 1, BLOCK):
                    yield merged[start : start + BLOCK]
                waiting, count = [merged[count - count % BLOCK :]], count % BLOCK
        if count:
            yield np.concatenate(waiting)

    def _pieces(self) -> Iterator[np.ndarray]:
        """Rows with a direction; those of a file are made unit rows, those of encoders are stored so."""
        if self.file is None:
            assert self.columns is not None
            for index in range(self.parts):
                rows = self.columns.part(index).array(self.column)
                norm = np.einsum("ij,ij->i", rows, rows) if len(rows) else np.empty(0)
                some = np.isfinite(norm) & (norm > 0)
                if some.any():
                    yield rows[some]
            return
        for _, block, length in unit_blocks(read_rows(self.file), BLOCK):
            if (length > 0).any():
                yield block[length > 0].astype(np.float32)


@dataclass(frozen=True)
class Similarity:
    """What `NormSim.score` compares with.

    Attributes:
        targets: where the target rows are (p = inf).
        matrix: ``(d, d) float64`` (p = 2).
        rows: target rows that have an embedding.
        dimensions: of them.
    """

    targets: Targets | None
    matrix: np.ndarray | None
    rows: int
    dimensions: int


@SCORERS.register
class NormSim(Scorer):
    """Similarity of an image to a target set (NormSim-2 or NormSim-inf); NaN where an embedding is missing."""

    type: Literal["norm_sim"] = "norm_sim"
    encoder: str = Field(description="Encoder whose image embeddings are compared.")
    target: str | None = Field(None, description="Target set of the config to compare with.")
    target_file: str | None = Field(
        None, description="Instead of a target set: .npy file of embeddings of the same encoder, (n, d)."
    )
    p: Literal[2, "inf"] = Field("inf", description="2 = near to many targets (fast), inf = near to one target (slow).")

    @model_validator(mode="after")
    def _one_target(self) -> NormSim:
        if (self.target is None) == (self.target_file is None):
            raise ValueError("give either `target` or `target_file`")
        return self

    def columns(self) -> list[str]:
        return [f"{self.encoder}.image"]

    def targets(self) -> dict[str, list[str]]:
        return {self.target: self.columns()} if self.target is not None else {}

    def files(self) -> list[str]:
        return [self.target_file] if self.target_file is not None else []

    def fit(self, context: Context) -> Similarity:
        if self.target is not None:
            parts = len(context.target(self.target).parts)
            targets = Targets(context.target_columns(self.target), parts, self.columns()[0], None)
        else:
            targets = Targets(None, 0, self.columns()[0], self.target_file)
        rows, dimensions, matrix = context.call(_look, targets, self.p == 2)
        if not rows:
            raise DataError(f"norm_sim: no row of {self.target or self.target_file} has an embedding")
        return Similarity(None if self.p == 2 else targets, matrix, rows, dimensions)

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        assert isinstance(state, Similarity)
        rows = part.array(self.columns()[0])
        if rows.shape[1] != state.dimensions:
            raise DataError(f"{self.columns()[0]} has {rows.shape[1]} dimensions, the targets have {state.dimensions}")
        some = np.isfinite(rows).all(axis=1)
        values = np.full(len(rows), np.nan, np.float32)
        if state.matrix is not None:
            values[some] = quadratic_norm(rows[some], state.matrix)
        elif some.any():
            assert state.targets is not None
            values[some] = largest_absolute_product(rows[some], state.targets.blocks())
        return {name: values}

    def describe(self, state: Any = None) -> dict[str, Any]:
        assert isinstance(state, Similarity)
        return {"p": self.p, "targets": state.rows, "dimensions": state.dimensions}


def read_rows(path: str) -> np.ndarray:
    """``(n, d)`` floats of a ``.npy`` file, mapped."""
    try:
        rows = np.load(storage.local(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"norm_sim: {path} cannot be read as .npy: {error}") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f":
        raise ConfigError(f"norm_sim: {path} must hold embeddings, (n, d) floats")
    return rows


def _look(targets: Targets, with_matrix: bool) -> tuple[int, int, np.ndarray | None]:
    """Target rows, their dimensions, and the sum of their outer products."""
    rows, matrix, dimensions = 0, None, 0
    for block in targets.blocks():
        rows, dimensions = rows + len(block), block.shape[1]
        if with_matrix:
            wide = block.astype(np.float64)
            product = wide.T @ wide
            matrix = product if matrix is None else np.add(matrix, product, out=matrix)
    return rows, dimensions, matrix


def quadratic_norm(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``sqrt(x' L x)``, ``(n,) float32``, of finite ``(n, d)`` rows, in float64."""
    out = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), TILE_COLUMNS):
        block = rows[start : start + TILE_COLUMNS].astype(np.float64)
        square = np.einsum("ij,ij->i", block @ matrix, block)
        out[start : start + len(block)] = np.sqrt(np.maximum(square, 0))  # rounding may dip below 0
    return out


def largest_absolute_product(rows: np.ndarray, blocks: Iterator[np.ndarray]) -> np.ndarray:
    """``max_t |<x, t>|``, ``(n,) float32``, of finite float32 rows, over all target rows t in `blocks`.

    The maximum of float64 products, rounded once: the same whatever the blocks, and the rows beside.
    """
    best = np.zeros(len(rows), np.float64)
    longest = _longest(rows)
    buffer = np.empty(min(len(rows), TILE_ROWS) * TILE_COLUMNS, np.float32)
    for block in blocks:
        # a float32 product is off by at most half of this
        doubt = np.float32(2 * (block.shape[1] + 2) * np.finfo(np.float32).eps * longest * _longest(block))
        for top in range(0, len(rows), TILE_ROWS):
            some = rows[top : top + TILE_ROWS]
            mine = best[top : top + TILE_ROWS]
            for left in range(0, len(block), TILE_COLUMNS):
                others = block[left : left + TILE_COLUMNS]
                tile = buffer[: len(some) * len(others)].reshape(len(some), len(others))
                np.abs(np.matmul(some, others.T, out=tile), out=tile)
                _raise(mine, some, others, tile, doubt)
    return best.astype(np.float32)


def _longest(rows: np.ndarray) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max(initial=0.0)))


def _raise(best: np.ndarray, rows: np.ndarray, others: np.ndarray, tile: np.ndarray, doubt: np.float32) -> None:
    """Raise `best` to the exact maximum over a tile of rounded ``|<row, other>|``, in place."""
    largest = tile.max(axis=1)
    above = np.flatnonzero(largest >= best - doubt)
    if not len(above):
        return
    limit = np.maximum(largest[above], best[above]) - doubt
    row, column = np.nonzero(tile[above] >= limit[:, None])
    for start in range(0, len(row), BLOCK):  # equal targets make many pairs
        i, j = above[row[start : start + BLOCK]], column[start : start + BLOCK]
        exact = np.abs(np.einsum("ij,ij->i", rows[i].astype(np.float64), others[j].astype(np.float64)))
        np.maximum.at(best, i, exact)
