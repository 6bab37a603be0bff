"""`cld3`: the language of a caption by Compact Language Detector 3, which DataComp's laion2b baseline uses.

As there: newline to space, no minimum of bytes, a maximum of 1,000. The network names a language for anything, an empty
caption included ("ja"); only a missing caption has none. An optional extra (``pip install "curate[cld3]"``, Apache-2.0,
bindings with wheels that keep the module name ``gcld3``). About 28 us per caption of ten words on one core, so ask it
last; equal captions of a part are asked once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ...errors import ConfigError
from ..base import SCORERS, Context, Part, Scorer
from ..captions import Captions, text

MAX_BYTES = 1000


@SCORERS.register
class Cld3(Scorer):
    """Language code of the caption, and ``<name>_probability``; null and NaN where there is no caption."""

    type: Literal["cld3"] = "cld3"

    def columns(self) -> list[str]:
        return ["caption"]

    def fit(self, context: Context) -> None:
        context.call(require_cld3)

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        codes, probabilities = identify_cld3(part.arrow("caption"))
        return {name: codes, f"{name}_probability": probabilities}

    def describe(self, state: Any = None) -> dict[str, Any]:
        from importlib.metadata import version

        return {"model": "CLD3", "cld3-py": version("cld3-py")}


def identify_cld3(captions: Captions) -> tuple[pa.Array, np.ndarray]:
    """Most likely language of each caption: ``(n,)`` codes and ``(n,) float32`` probabilities; null and NaN for null.

    Raises:
        ConfigError: the detector is not installed.
    """
    detector = _detector()
    distinct = text(captions).dictionary_encode()
    codes: list[str] = []
    probabilities = np.full(len(distinct.dictionary) + 1, np.nan, np.float32)  # the last is for null
    for i, caption in enumerate(distinct.dictionary.to_pylist()):
        found = detector.FindLanguage(text=caption.replace("\n", " "))
        codes.append(found.language)
        probabilities[i] = found.probability
    rows = distinct.indices
    return pa.array(codes, pa.string()).take(rows), probabilities[rows.fill_null(len(codes)).to_numpy()]


def require_cld3() -> None:
    """Raise `ConfigError` if the detector is not installed."""
    _detector()


@lru_cache(maxsize=1)
def _detector() -> Any:
    try:
        import gcld3
    except ImportError as error:
        raise ConfigError(
            'CLD3 is not installed; pip install "curate[cld3]", or let fastText judge (`language_by: fasttext`), which '
            "differs from DataComp's laion2b in some captions"
        ) from error
    return gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=MAX_BYTES)
