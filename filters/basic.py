"""`basic`: DataComp's basic filter: the caption's language and length, the image's size and shape.

DataComp's ``basic_filter`` is ``{languages: [en], min_words: 3, min_chars: 6, min_side: 200, max_aspect: 3.0}``:
``len(text.split()) > 2``, ``len(text) > 5``, shorter side >= 200, longer / shorter <= 3.0, of the original image.
A rule that is switched off needs no column. The first rule that a row breaks, in the order above, is its reason.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from .base import FILTERS, Decision, Filter, Part, numbers
from .captions import characters, words


@FILTERS.register
class Basic(Filter):
    """Cheap rules on caption and image size, with DataComp's defaults."""

    catches: ClassVar[tuple[str, ...]] = ("foreign", "short", "tiny", "strip")
    type: Literal["basic"] = "basic"
    languages: list[str] = Field(
        default_factory=lambda: ["en"], description="Languages to keep, as codes; empty = any language."
    )
    language_column: str = Field("language", description="Column with the caption's language code.")
    min_words: int = Field(3, ge=0, description="Fewest words, split at white space; 0 = no rule.")
    min_chars: int = Field(6, ge=0, description="Fewest characters; 0 = no rule.")
    min_side: int = Field(200, ge=0, description="Shortest side of the original image in pixels; 0 = no rule.")
    max_aspect: float | None = Field(3.0, ge=1, description="Largest longer side / shorter side; null = no rule.")

    def columns(self) -> list[str]:
        rules = {
            self.language_column: bool(self.languages),
            "caption": bool(self.min_words or self.min_chars),
            "original_width": self._looks_at_size(),
            "original_height": self._looks_at_size(),
        }
        return [column for column, used in rules.items() if used]

    def _looks_at_size(self) -> bool:
        return bool(self.min_side) or self.max_aspect is not None

    def decide(self, part: Part, state: Any) -> Decision:
        keep = np.ones(len(part), bool)
        reason = np.full(len(part), None, object)
        value = np.full(len(part), np.nan, np.float32)

        def require(passes: np.ndarray, code: str, offending: np.ndarray | None = None) -> None:
            dropped = keep & ~passes
            keep[dropped] = False
            reason[dropped] = code
            if offending is not None:
                value[dropped] = offending[dropped]

        if self.languages:
            import pyarrow.compute as pc  # late: it defines hundreds of functions

            allowed = pa.array(self.languages, pa.string())
            known = pc.is_in(part.arrow(self.language_column).cast(pa.string()), allowed)  # type: ignore[attr-defined]
            require(np.asarray(known.to_numpy(), bool), "language")
        if self.min_words:
            count = words(part.arrow("caption"))
            require(count >= self.min_words, "words", count)
        if self.min_chars:
            count = characters(part.arrow("caption"))
            require(count >= self.min_chars, "chars", count)
        if self._looks_at_size():
            width, height = (numbers(part, f"original_{side}", np.float64) for side in ("width", "height"))
            shorter, longer = np.minimum(width, height), np.maximum(width, height)
            if self.min_side:
                require(shorter >= self.min_side, "side", shorter)
            if self.max_aspect is not None:
                with np.errstate(divide="ignore", invalid="ignore"):
                    aspect = longer / shorter
                require(aspect <= self.max_aspect, "aspect", aspect)
        return Decision(keep, value, reason)

    def describe(self, state: Any) -> dict[str, Any]:
        rules = {
            "language": self.languages or None,
            "words": self.min_words or None,
            "chars": self.min_chars or None,
            "side": self.min_side or None,
            "aspect": self.max_aspect,
        }
        return {"rules": {code: bound for code, bound in rules.items() if bound is not None}}
