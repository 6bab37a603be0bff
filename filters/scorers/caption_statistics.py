"""`caption_statistics`: words and characters of a caption, counted as `basic` counts them; for thresholds and plots."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ..base import SCORERS, Part, Scorer
from ..captions import characters, words


@SCORERS.register
class CaptionStatistics(Scorer):
    """Number of words, and ``<name>_chars``, the number of characters."""

    type: Literal["caption_statistics"] = "caption_statistics"

    def columns(self) -> list[str]:
        return ["caption"]

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        captions = part.arrow("caption")
        return {name: words(captions).astype(np.float32), f"{name}_chars": characters(captions).astype(np.float32)}
