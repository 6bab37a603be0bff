"""Embeddings that exist already, in the place of an encoder: what all kinds of imports share.

    encoders: {l14: {import: {type: datacomp, path: metadata/, arch: l14}}}

Rows find their vectors by the same join as scores (`uid_join.py`); only the vectors that the pool asks for are read,
from where they lie. Scores and filters take embeddings for unit vectors, so a vector whose norm is off by more than a
hundredth is divided by it; all others, DataComp's and clip-retrieval's among them, come through bit for bit. A vector
without a direction (zero, NaN or infinite) counts as none. Whatever happens to a vector is counted.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ..errors import DataError
from ..registry import Registry
from ..shards import storage
from . import vector_files
from .base import Context, Part, Reads
from .uid_join import UID, Duplicates, Joined, join, plan_in, publish_array
from .vector_ranges import copied, keys_of

Modality = Literal["image", "text"]
TOLERANCE = 0.01  # of a norm; half precision keeps a unit vector within 0.001
_BLOCK = 8192


@dataclass(frozen=True)
class Imported:
    """What `EmbeddingImport.fit` found.

    Attributes:
        dims: length of the vectors by modality.
    """

    joined: Joined
    dims: dict[str, int]


class EmbeddingImport(Reads):
    """Base of all imports of embeddings. Subclasses are registered in `EMBEDDING_IMPORTS`.

    Attributes:
        version: bump when the same options would give other vectors; part of the fingerprint.
    """

    key: str = Field(default=UID, description="Column of the files with the uid; shorter uids are padded with zeros.")
    on: str = Field(
        default=UID,
        description="Column of the pool that the key must equal: `uid`, or one with text, such as `url` or `key`.",
    )
    duplicates: Duplicates = Field(
        default="error", description="A key that the files repeat with different vectors: `error`, or take the `first`."
    )
    normalize: bool = Field(
        default=True,
        description="Divide vectors by their norm where it is off 1 by more than 0.01, and count zero vectors as none; "
        "false = take all as they are.",
    )

    @abstractmethod
    def modalities(self) -> list[Modality]:
        """What there will be vectors of: ``image``, ``text`` or both."""

    @abstractmethod
    def ranges(self) -> list[dict[str, Any]]:
        """Row ranges: ``{"rows", "start", "name", "keys", "vectors": {modality: where}}`` (`VectorFiles`)."""

    @abstractmethod
    def files(self) -> list[str]:
        """Files that the vectors depend on; their content is part of the fingerprint."""

    def columns(self) -> list[str]:
        """Columns of the pool that `fit` reads."""
        return [self.on]

    def fit(self, context: Context) -> Imported:
        """Find the place of every usable row's vectors.

        Raises:
            ConfigError: a file or column is missing. DataError: files do not fit together, or keys repeat.
        """
        joined = join(context, VectorFiles(self), self.on, self.duplicates, f"import of embeddings ({self.type})")
        return Imported(joined, context.call(_dims, joined.folder))

    def arrays(self, part: Part, state: Imported) -> dict[str, np.ndarray]:
        """Per modality ``(n, d) float16``, rows as in the part, NaN where there is no vector."""
        return self.read(part, state)[0]

    def read(self, part: Part, state: Imported) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """`arrays`, and counts for them: per modality ``<m>`` vectors, and rows that matched but whose vector is
        ``<m>_zero`` or ``<m>_broken`` (NaN or infinite), and ``<m>_normalized`` ones."""
        hit, sources, rows = state.joined.places(part)
        at = np.flatnonzero(hit)
        arrays, counts = {}, {}
        for modality in self.modalities():
            out = np.full((len(part), state.dims[modality]), np.nan, np.float16)
            found = np.zeros(4, np.int64)
            for start in range(0, len(at), _BLOCK):
                some = at[start : start + _BLOCK]
                vectors = take(state.joined.folder, modality, sources[some], rows[some])
                out[some], seen = prepared(vectors, self.normalize)
                found += seen
            arrays[modality] = out
            names = (modality, f"{modality}_zero", f"{modality}_broken", f"{modality}_normalized")
            counts |= dict(zip(names, found.tolist(), strict=True))
        return arrays, counts

    def describe(self, state: Imported) -> dict[str, Any]:
        """Facts as strict JSON: counts of the join (`Joined.facts`) and the vectors' lengths."""
        return {**state.joined.facts, "dims": dict(state.dims)}


EMBEDDING_IMPORTS: Registry[EmbeddingImport] = Registry("import of embeddings")


@dataclass(frozen=True)
class VectorFiles:
    """Files of vectors as `uid_join.External`. What cannot be mapped is copied out while the keys are read."""

    options: EmbeddingImport

    def plan(self) -> dict[str, Any]:
        """Raises `DataError` when vectors of one modality have different lengths."""
        ranges = self.options.ranges()
        dims: dict[str, int] = {}
        for found in ranges:
            for modality, place in found["vectors"].items():
                if place["dim"] is not None and place["dim"] != dims.setdefault(modality, place["dim"]):
                    raise DataError(
                        f"{place['path']}: its {modality} vectors have length {place['dim']}, those of other files "
                        f"{dims[modality]}"
                    )
        if len(dims) < len(self.options.modalities()):
            raise DataError(f"import of embeddings ({self.options.type}): there are no vectors in the files")
        files = {path: storage.identity(path) for path in self.options.files()}
        return {"ranges": ranges, "dims": dims, "files": files}

    def keys(self, plan: dict[str, Any], source: int, folder: str) -> pa.Array:
        found = plan["ranges"][source]
        for modality, place in found["vectors"].items():
            if place["form"] != "mapped":
                publish_array(_copy(folder, source, modality), copied(place, found, plan["dims"][modality]))
        return keys_of(found)

    def equal(
        self, folder: str, sources: tuple[np.ndarray, np.ndarray], rows: tuple[np.ndarray, np.ndarray]
    ) -> np.ndarray:
        same = np.ones(len(rows[0]), bool)
        for modality in plan_in(folder)["dims"]:
            for start in range(0, len(same), _BLOCK):
                some = slice(start, start + _BLOCK)
                a, b = (take(folder, modality, s[some], r[some]) for s, r in zip(sources, rows, strict=True))
                same[some] &= ((a == b) | (np.isnan(a) & np.isnan(b))).all(1)
        return same

    def place(self, plan: dict[str, Any], source: int, row: int) -> str:
        found = plan["ranges"][source]
        return f"row {found['start'] + row} of {found['name']}"


def take(folder: str, modality: str, sources: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Vectors at ``(m,)`` places, ``(m, d) float32``."""
    plan = plan_in(folder)
    out = np.empty((len(rows), plan["dims"][modality]), np.float32)
    for source in np.unique(sources).tolist():
        at = np.flatnonzero(sources == source)
        found = plan["ranges"][source]
        place = found["vectors"][modality]
        if place["form"] == "mapped":
            stored, first = vector_files.mapped(place["path"], place["member"]), found["start"]
        else:
            stored, first = vector_files.mapped(_copy(folder, source, modality)), 0
        if first + int(rows[at].max()) >= len(stored):
            raise DataError(f"{place['path']} has fewer rows than it had; was it replaced?")
        with np.errstate(over="ignore"):  # of float64: an infinite vector counts as broken
            out[at] = stored[first + rows[at]]
    return out


def prepared(vectors: np.ndarray, normalize: bool) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """``(m, d) float32`` as they were stored -> ``float16`` as they are used, NaN rows where there is no vector.

    Returns:
        The vectors, and how many are good, zero, broken, and were divided by their norm.
    """
    broken = ~np.isfinite(vectors).all(1)
    zero = ~broken & ~vectors.any(1)
    scaled = np.zeros(len(vectors), bool)
    out = vectors
    if normalize:
        norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(1))
        scaled = ~broken & ~zero & (np.abs(norms - 1) > TOLERANCE)
        out = vectors.copy()
        out[scaled] = vectors[scaled] / norms[scaled, None]
        out[zero] = np.nan
    with np.errstate(over="ignore"):
        half = out.astype(np.float16)
    broken |= np.isinf(half).any(1)  # too large for half precision
    half[broken] = np.nan
    return half, (int((~broken & ~zero).sum()), int(zero.sum()), int(broken.sum()), int(scaled.sum()))


def _dims(folder: str) -> dict[str, int]:
    return dict(plan_in(folder)["dims"])


def _copy(folder: str, source: int, modality: str) -> str:
    return storage.join(folder, f"{modality}-{source:06d}.npy")
