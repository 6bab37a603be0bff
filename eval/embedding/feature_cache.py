"""Features kept on disk under a key of *content*: a checkpoint or a set that was overwritten never meets stale ones.

Every model has a folder, named by its digest; it may be deleted at any time, and is made again when it is needed.

``features-<key>-<chunk>.npz``: a chunk of a split's pictures as one model sees them. The key is over the model's digest
(weights and preprocessing), its precision and the split's digest, and over the rows where only some are
wanted. Beside features lie the hashes of the pictures, so that a set that is met again later knows which of its
pictures it shares with this one without reading this one. A killed evaluation loses the chunk that it was at.

``texts-<key>-<chunk>.npz``: texts and their features; the key is over the model, the chunk's name over the texts. All
files of a model are looked through for a text, so sets that are added later pay for their new texts only.

All is float32: a metric from the cache is bit for bit the metric without it, at twice the disk of float16 (1.5 GB per
checkpoint for DataComp's 40 tasks at 512 dimensions). The zip's check sums tell a damaged file from a whole one.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...errors import DataError
from ...shards import storage

if TYPE_CHECKING:
    from ...pretrain.encoders.encoder import Encoder

CHUNK = 1024
"""Pictures in a file: what a killed evaluation may lose."""
HASH_BYTES = 16


class Chunk(NamedTuple):
    """Some pictures of a split as a model sees them.

    Attributes:
        image: ``(n, d) float32``, L2-normalised.
        norms: ``(n,) float32``, lengths before that, of models that classify; else None.
        content: ``(n, 16) uint8``, hashes of the files' bytes.
    """

    image: np.ndarray
    norms: np.ndarray | None
    content: np.ndarray


class FeatureCache:
    """Chunks of the features of one model on one split."""

    def __init__(
        self,
        folder: str | None,
        encoder: Encoder,
        set_digest: str,
        split: str,
        rows: np.ndarray | None = None,
        norms: bool = False,
    ) -> None:
        """
        Args:
            folder: where files lie; None = keep nothing, find nothing.
            rows: ``(m,) int64``, ascending, the rows that are kept; None = all.
            norms: whether chunks have lengths.
        """
        self._folder = storage.join(folder, encoder.digest) if folder else None
        self._dim, self._norms = encoder.dim, norms
        some = [] if rows is None else [hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest()]
        self._key = _hash([encoder.digest, encoder.precision, set_digest, split, "pooled" if norms else "", *some])

    def read(self, number: int, pictures: int) -> Chunk | None:
        """A chunk of so many pictures; None if it is not there.

        Raises:
            DataError: the file is broken, or is not what its name says.
        """
        path = self._path(number)
        if path is None or not storage.exists(path):
            return None
        found = _load(path)
        shapes = {"image": ((pictures, self._dim), np.float32), "content": ((pictures, HASH_BYTES), np.uint8)}
        shapes |= {"norms": ((pictures,), np.float32)} if self._norms else {}
        for name, (shape, kind) in shapes.items():
            if name not in found or found[name].shape != shape or found[name].dtype != kind:
                what = f"{found[name].shape} {found[name].dtype}" if name in found else "missing"
                raise _broken(path, f"{name} is {what}, not {shape} {np.dtype(kind)}")
        return Chunk(found["image"], found.get("norms"), found["content"])

    def write(self, number: int, chunk: Chunk) -> None:
        """Keep a chunk."""
        path = self._path(number)
        if path is not None:
            norms = {} if chunk.norms is None else {"norms": chunk.norms}
            _save(path, {"image": chunk.image, "content": chunk.content, **norms})

    def _path(self, number: int) -> str | None:
        return storage.join(self._folder, f"features-{self._key}-{number:06d}.npz") if self._folder else None


class TextCache:
    """Features of texts of one model."""

    def __init__(self, folder: str | None, encoder: Encoder) -> None:
        """
        Args:
            folder: where files lie; None = keep nothing, find nothing.
        """
        self._folder = storage.join(folder, encoder.digest) if folder else None
        self._dim = encoder.dim
        self._prefix = f"texts-{_hash([encoder.digest, encoder.precision])}-"

    def read(self, wanted: Iterable[str]) -> tuple[list[str], np.ndarray]:
        """Those of the texts that are there, and their features ``(n, d) float32``.

        Raises:
            DataError: a file is broken.
        """
        left, texts, features = dict.fromkeys(wanted), [], [np.empty((0, self._dim), np.float32)]
        for name in storage.list_names(self._folder) if self._folder else ():
            if not name.startswith(self._prefix) or not left:
                continue
            path = storage.join(self._folder or "", name)
            found = _load(path, {"texts"})
            try:
                kept: list[str] = json.loads(found["texts"].tobytes())
            except (KeyError, ValueError) as error:
                raise _broken(path, "its texts cannot be read") from error
            rows = [row for row, text in enumerate(kept) if text in left]
            if not rows:
                continue
            values = _load(path).get("features")
            if values is None or values.shape != (len(kept), self._dim) or values.dtype != np.float32:
                raise _broken(path, f"it does not hold {len(kept)} features of {self._dim} numbers")
            features.append(values[rows])
            for row in rows:
                texts.append(kept[row])
                del left[kept[row]]
        return texts, np.concatenate(features)

    def write(self, texts: Sequence[str], features: np.ndarray) -> None:
        """Keep texts with their features ``(n, d) float32``."""
        if self._folder:
            body = json.dumps(list(texts)).encode()
            path = storage.join(self._folder, f"{self._prefix}{hashlib.blake2b(body, digest_size=16).hexdigest()}.npz")
            _save(path, {"texts": np.frombuffer(body, np.uint8), "features": features})


def _hash(parts: Sequence[str]) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _save(path: str, arrays: dict[str, np.ndarray]) -> None:
    with storage.publishing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _load(path: str, names: set[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of a file, or those of some names; the check sum of each is looked at."""
    try:
        with np.load(storage.local(path), allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is not an npz file")
            return {name: file[name] for name in file.files if names is None or name in names}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise _broken(path, str(error)) from error


def _broken(path: str, reason: str) -> DataError:
    return DataError(f"the cached features {path} cannot be read ({reason}); delete the file")
