"""What every plotly figure of the page shares: the look, the legend, and the words and the table beside it.

Figures are plain dictionaries, so that they are the same bytes every time and plotly's slow Python objects stay out.
A colour is written as ``var(--name)``; the page puts in the value that the name has in the current theme, and again
when the theme changes. Each figure comes with a sentence and a table that say the same to those who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CLEAR = "rgba(0,0,0,0)"
FONT = "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif"
_AXIS: dict[str, Any] = {
    "gridcolor": "var(--grid)",
    "linecolor": "var(--rule)",
    "tickcolor": "var(--rule)",
    "zeroline": False,
    "showline": True,
    "ticks": "outside",
    "ticklen": 4,
    "automargin": True,
    "title": {"standoff": 10, "font": {"size": 12, "color": "var(--muted)"}},
}
TEMPLATE: dict[str, Any] = {
    "layout": {
        "font": {
            "family": FONT,
            "size": 12,
            "color": "var(--soft)",
        },
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "xaxis": {**_AXIS, "showgrid": False},
        "yaxis": {**_AXIS, "showline": False, "ticks": ""},
        "margin": {"l": 48, "r": 14, "t": 10, "b": 44},
        "showlegend": False,
        "hoverlabel": {
            "bgcolor": "var(--surface)",
            "bordercolor": "var(--rule)",
            "font": {"family": FONT, "color": "var(--ink)"},
        },
        "dragmode": False,
    }
}
"""Look shared by all figures; a plotly template."""


@dataclass(frozen=True)
class Table:
    """Text alternative of a plot."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Key:
    """One entry of a legend; its button shows and hides `traces`.

    Attributes:
        dash: SVG dash pattern of a line, "" for a solid one; None = a filled swatch.
    """

    name: str
    color: str
    traces: Sequence[int]
    dash: str | None = None


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        id: of its element in the page.
        says: one sentence for those who cannot see it.
        figure: plotly's ``data`` and ``layout``.
        height: CSS pixels.
        title: of the tab that shows it, where several share a place.
        legend: outside of the figure, where it wraps well and takes the keyboard.
    """

    id: str
    says: str
    figure: dict[str, Any]
    table: Table
    height: int
    title: str = ""
    legend: Sequence[Key] = ()


SOLID = "solid"
DASHES = (SOLID, "7px,3px", "2px,3px", "9px,3px,2px,3px")
"""Line styles that tell arms apart without colour, as plotly writes them."""


def svg_dash(dash: str) -> str:
    """The same line style as SVG writes it."""
    return "" if dash == SOLID else dash.replace("px", "")


def number(x: float) -> float | None:
    """Six significant digits are more than a screen shows; plotly leaves a gap where there is no number."""
    return float(f"{x:.6g}") if math.isfinite(x) else None
