"""What the page is made of: sections, and things behind tabs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .data import Report
from .figures import Plot


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        id: anchor; its template is ``<id>.html``.
        short: text of its link.
        lede: how to read it.
        content: what the template writes.
        plots: figures that it shows.
    """

    id: str
    title: str
    short: str
    lede: str
    content: Mapping[str, Any]
    plots: Sequence[Plot] = field(default_factory=list)


@dataclass(frozen=True)
class Titled:
    """Something in a tab; `badge` is a small number beside the title."""

    title: str
    content: Any
    badge: str = ""


def first_shown(panels: Sequence[Titled], report: Report) -> int:
    """The subset to show first: the headline's arm, else the first."""
    arm = report.headline.contrasts[0].arm if report.headline else ""
    return next((i for i, p in enumerate(panels) if p.title == arm), 0)
