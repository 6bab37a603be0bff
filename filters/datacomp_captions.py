"""DataComp's rules on captions: which language its models name, and what `image_based` asks of a caption.

The language is asked last, of the captions that passed the cheap rules, because it costs twenty times as much as all of
them. Every caption gets an answer, as in the reference: fastText finds no word in a caption of newlines and still names
a language ("en", by its bias alone), so that such captions of more than five signs pass `image_based`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from .base import Part
from .captions import characters, text
from .scorers.cld3 import identify_cld3
from .scorers.language import fasttext_tokens, identify

ENGLISH = "en"
NOTHING = "\0"  # fastText splits at it, and Python does not call it white space


def english(part: Part, at: np.ndarray, by: str, model: str | None, column: str | None) -> np.ndarray:
    """Which of the part's rows `at` are English, ``(m,) bool``; a missing caption is not.

    Args:
        at: ``(m,)`` places among the alive rows.
        by: ``fasttext`` or ``cld3``.
        model: of fastText; None = the one that is installed.
        column: column with the language codes, if they exist already.
    """
    if not len(at):
        return np.zeros(0, bool)
    if column is not None:
        return _is_english(part.arrow(column).cast(pa.string()).take(pa.array(at)))
    captions = text(part.arrow("caption").take(pa.array(at)))
    return _is_english(identify_cld3(captions)[0] if by == "cld3" else identify_any(captions, model))


def identify_any(captions: pa.Array, model: str | None = None) -> pa.Array:
    """fastText's label of every caption, white space included; null only for null."""
    codes = identify(captions, model)[0]
    blank = np.flatnonzero(
        codes.is_null().to_numpy(zero_copy_only=False) & captions.is_valid().to_numpy(zero_copy_only=False)
    )
    if not len(blank):
        return codes
    asked = [caption + NOTHING for caption in captions.take(pa.array(blank)).to_pylist()]
    answers = np.array(codes.to_pylist(), object)
    answers[blank] = identify(asked, model)[0].to_pylist()
    return pa.array(answers, pa.string())


def _is_english(codes: pa.Array | pa.ChunkedArray) -> np.ndarray:
    import pyarrow.compute as pc

    return pc.fill_null(pc.equal(codes, ENGLISH), False).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]


def long_enough(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """`image_based`'s cheap caption rules: more than one fastText token of the raw text, and more than five characters.

    Returns:
        two masks ``(n,) bool``; False where there is no caption.
    """
    captions = part.arrow("caption")
    return fasttext_tokens(captions) > 1, characters(captions) > 5
