"""`image_text_overlap`: how much of the caption is merely written in the picture.

A model that learns to read such pairs learns little else (T-MARS, Maini et al., 2023: text that repeats the caption is
in some 40 % of web pairs, and CLIP scores like them). Text is found and read by PP-OCR (`pretrain.detectors`); words
are compared as written, without case. 80 ms a picture at 640 pixels, and 7 to 50 ms a line of text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...pretrain.detectors.text_boxes import SIDE, TextBoxes, text_boxes_model
from ...pretrain.detectors.text_lines import TextLines, text_lines_model
from ...shards.image_pass import Picture
from ...shards.shard import Shard
from ..base import SCORERS, PixelReader
from ..pixel_reader import ModelReader, ModelScorer, reduce_to
from .text_in_image import covered

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
"""A run of letters and digits; in scripts without spaces (kana, Chinese characters), each character."""


@SCORERS.register
class ImageTextOverlap(ModelScorer):
    """Share of the caption's words that are written in the picture, NaN without words; ``<name>_text``, what is written
    there; ``<name>_share`` of the area and ``<name>_boxes``, the columns of `text_in_image`."""

    type: Literal["image_text_overlap"] = "image_text_overlap"
    side: int = Field(
        default=SIDE,
        ge=32,
        le=2048,
        description="Longer side in pixels at which pictures are looked at; smaller ones are enlarged up to 3 times.",
    )
    max_lines: int = Field(
        default=32, ge=1, description="Lines of text that are read in a picture, the largest; bounds its cost."
    )
    max_characters: int = Field(default=500, ge=0, description="Characters of the text that are kept in its column.")

    def columns(self) -> list[str]:
        return ["caption"]

    def reader(self, name: str, state: Any = None) -> PixelReader:
        return OverlapReader(name, self)

    def models(self) -> list[Path]:
        return [text_boxes_model(), text_lines_model()]


class OverlapReader(ModelReader):
    def __init__(self, name: str, options: ImageTextOverlap) -> None:
        kinds = {"": pa.float32(), "_text": pa.string(), "_share": pa.float32(), "_boxes": pa.int32()}
        super().__init__({name + end: kind for end, kind in kinds.items()})
        self.options = options
        self._boxes, self._lines = TextBoxes(options.device, options.side), TextLines(options.device)
        self._captions: dict[int, list[str | None]] = {}

    def begin(self, index: int, shard: Shard, rows: int) -> None:
        super().begin(index, shard, rows)
        there = "caption" in shard.column_names()
        self._captions[index] = shard.read_table(["caption"])["caption"].to_pylist() if there else [None] * rows

    def prepare(self, picture: Picture) -> np.ndarray:
        return reduce_to(picture.rgb, self.options.side)

    def take(self, index: int, row: int, prepared: np.ndarray) -> None:
        super().take(index, row, (prepared, self._captions[index][row]))

    def result(self, index: int) -> dict[str, np.ndarray | pa.Array]:
        del self._captions[index]
        return super().result(index)

    def ask(self, prepared: list[tuple[np.ndarray, str | None]]) -> Sequence[Sequence[Any]]:
        return [self._judge(rgb, caption) for rgb, caption in prepared]

    def _judge(self, rgb: np.ndarray, caption: str | None) -> Sequence[Any]:
        boxes = self._boxes(rgb)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        largest = np.sort(np.argsort(-area, kind="stable")[: self.options.max_lines])  # still in reading order
        text = " ".join(self._lines(rgb, boxes[largest]))
        return overlap(caption, text), _printable(text)[: self.options.max_characters], *covered(rgb, boxes)


def overlap(caption: str | None, text: str) -> float:
    """Share of the caption's words, repeats counted, that are among the words of `text`; NaN for no words."""
    said = words(caption or "")
    written = set(words(text))
    return sum(word in written for word in said) / len(said) if said else float("nan")


def words(text: str) -> list[str]:
    """Words of a text in order, compatibility forms and case folded away.

    >>> words("Grand SALE: 50% off!")
    ['grand', 'sale', '50', 'off']
    """
    return WORD.findall(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))


def _printable(text: str) -> str:
    """One line; what a picture says is data, but need not break a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
