"""`checksum`: SHA-256 of a picture's decoded pixels, and of its stored file.

The row table's ``sha256`` is of the file as it came; equal pixels in another file (other metadata, png against lossless
webp, a progressive copy of a JPEG) have another one. Pixels are hashed with their size, so that a picture and the same
bytes in another shape differ. Decoders of JPEG differ in the last bit: pixel checksums of one installation compare.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ...shards.image_pass import Picture
from ..base import SCORERS, PixelReader, PixelScorer
from ..pixel_reader import ColumnReader


@SCORERS.register
class Checksum(PixelScorer):
    """SHA-256 of the pixels, 64 hex digits like the row table's, and ``<name>_file``, of the stored file."""

    type: Literal["checksum"] = "checksum"

    def reader(self, name: str, state: Any = None) -> PixelReader:
        return ChecksumReader(name)


class ChecksumReader(ColumnReader):
    def __init__(self, name: str) -> None:
        super().__init__({name: pa.string(), f"{name}_file": pa.string()})

    def prepare(self, picture: Picture) -> Any:
        return pixel_checksum(picture.rgb), hashlib.sha256(picture.body).hexdigest()


def pixel_checksum(rgb: np.ndarray) -> str:
    """SHA-256 of ``"<width>x<height>\\n"`` and the ``(h, w, 3) uint8`` pixels, row by row; 64 hex digits."""
    height, width = rgb.shape[:2]
    digest = hashlib.sha256(f"{width}x{height}\n".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()
