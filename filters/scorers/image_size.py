"""`image_size`: how large the stored picture is, measured on its pixels.

The row table has sizes too (``width``, ``original_width``...), but pools from elsewhere may lack them or be wrong; and
the bytes of the stored file, of which very few per pixel mean an empty picture, are in no table. The sizes of the
original, which DataComp's filter uses, are only in the row table.
"""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa

from ...shards.image_pass import Picture
from ..base import SCORERS, PixelReader, PixelScorer
from ..pixel_reader import ColumnReader


@SCORERS.register
class ImageSize(PixelScorer):
    """Shorter side in pixels, ``<name>_width``, ``<name>_height``, ``<name>_aspect`` (longer / shorter side, at least
    1) and ``<name>_bytes`` of the stored file."""

    type: Literal["image_size"] = "image_size"

    def reader(self, name: str, state: Any = None) -> PixelReader:
        return SizeReader(name)


class SizeReader(ColumnReader):
    def __init__(self, name: str) -> None:
        kinds = {"": pa.int32(), "_width": pa.int32(), "_height": pa.int32(), "_aspect": pa.float32()}
        super().__init__({name + end: kind for end, kind in kinds.items()} | {f"{name}_bytes": pa.int64()})

    def prepare(self, picture: Picture) -> Any:
        height, width = picture.rgb.shape[:2]
        short, long = sorted((width, height))
        return short, width, height, long / short, len(picture.body)
