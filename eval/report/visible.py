"""Make hostile text harmless to look at, without hiding what it holds.

Escaping keeps markup from running; it does nothing against characters that reorder, hide or break what a reader sees.
Here these become visible marks: a right-to-left override is shown as ⟨U+202E⟩, a line break as ⏎. The price: captions
in scripts that join letters with zero-width characters show these joiners as marks too. In a page for judging data that
is right.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from markupsafe import Markup, escape

_HIDDEN = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, fillers, Arabic letter mark
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f"  # zero width, bidirectional marks and overrides, line separators
    "\u3164\ufeff\uffa0\ufff0-\ufffb"  # fillers, byte order mark, annotations
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # musical controls, tags
    "\ud800-\udfff"  # halves of surrogate pairs
    "]"
)
_SIGNS = {"\n": "⏎", "\t": "⇥", "\x7f": "\u2421"}
_JOINER = "\u200d"
_MARK = re.compile(r"⟨U\+[0-9A-F]{4,6}⟩|[\u2400-\u241f\u2421⏎⇥]")


def reveal(text: str) -> str:
    """The same text with every character that hides or reorders replaced by a visible mark.

    The zero-width joiner stays between two pictographs, where it makes one emoji of them.
    """
    text = text.replace("\r\n", "\n")
    return _HIDDEN.sub(lambda found: _sign(found.group(), text, found.start()), text)


def _sign(character: str, text: str, at: int) -> str:
    code = ord(character)
    if character == _JOINER and _pictograph(text[at - 1 : at]) and _pictograph(text[at + 1 : at + 2]):
        return character
    if character in _SIGNS:
        return _SIGNS[character]
    if code < 0x20:
        return chr(0x2400 + code)
    return f"⟨U+{code:04X}⟩"


def _pictograph(character: str) -> bool:
    return bool(character) and (character == "\ufe0f" or unicodedata.category(character) in ("So", "Sk"))


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters; what is cut off is replaced by an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def marked(text: str) -> Markup:
    """Revealed text as HTML, its marks set apart from what was really written, isolated in direction."""
    shown = str(escape(reveal(text)))
    return Markup('<bdi class="t">' + _MARK.sub(lambda m: f'<i class="ctl">{m.group()}</i>', shown) + "</bdi>")


def lines(text: str) -> Markup:
    """Revealed text of several lines as HTML for a ``<pre>``."""
    return Markup("\n").join(escape(reveal(line)) for line in text.expandtabs(4).splitlines())


def plot_text(text: str, limit: int = 80) -> str:
    """Text for plotly, which reads a little HTML in its labels: revealed, shortened, and inert.

    ``%{`` would be read as a place holder and ``$`` as mathematics.
    """
    inert = str(escape(shorten(reveal(text), limit)))
    return inert.replace("%{", "%&#123;").replace("$", "&#36;")


def json_block(value: Any) -> Markup:
    """Strict JSON that is safe inside a ``<script type="application/json">`` element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


__all__ = ["json_block", "lines", "marked", "plot_text", "reveal", "shorten"]
