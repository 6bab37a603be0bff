"""What a filter kept of each group: bars of rows, kept and dropped, the largest group first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import quantity
from .data import Group, Quotas
from .figures import Key, Plot, Table
from .visible import plot_text

LISTED = 24  # groups up to which each has a line with its name
TABLE = 200  # groups that the table beside a plot names


@dataclass(frozen=True)
class QuotaView:
    """Few groups as lines, many as a plot."""

    quotas: Quotas
    title: str
    says: str
    largest: int
    plot: Plot | None


def quota_view(quotas: Quotas, id: str) -> QuotaView:
    """What the template shows of one filter's groups."""
    groups = quotas.groups
    size, kept = sum(g.size for g in groups), sum(g.kept for g in groups)
    whole = sum(g.kept == g.size for g in groups)
    says = f"{quantity.count(kept)} of {quantity.count(size)} rows kept in {_several(quotas, len(groups))}; "
    says += f"{quantity.count(whole)} kept whole, {quantity.count(sum(not g.kept for g in groups))} dropped whole."
    if quotas.left_out:
        says += f" {quantity.count(quotas.left_out)} smaller ones are not shown."
    title = f"{quotas.subset} · {quotas.filter}"
    plot = quota_plot(quotas, says, id) if len(groups) > LISTED else None
    return QuotaView(quotas, title, says, max((g.size for g in groups), default=1), plot)


def _several(quotas: Quotas, n: int) -> str:
    what = quotas.what if quotas.what in ("cluster", "group") else f"group by {quotas.what}"
    first, _, rest = what.partition(" ")
    return f"{quantity.count(n)} {first}{'' if n == 1 else 's'}{' ' + rest if rest else ''}"


def quota_plot(quotas: Quotas, says: str, id: str) -> Plot:
    """Stacked bars without gaps, by rank; names are said where the pointer is."""
    groups = quotas.groups
    bars = {"type": "bar", "x": list(range(1, len(groups) + 1)), "textposition": "none"}
    told = [_says(g) for g in groups]
    traces = [
        {
            **bars,
            "name": name,
            "y": [count(g) for g in groups],
            "marker": {"color": color, "line": {"width": 0}},
            "customdata": told,
            "hovertemplate": "%{customdata}<extra></extra>",
        }
        for name, color, count in (
            ("kept", "var(--kept)", lambda g: g.kept),
            ("dropped", "var(--dropped-soft)", lambda g: g.size - g.kept),
        )
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0.15 if len(groups) < 120 else 0,
        "hovermode": "closest",
        "xaxis": {"title": {"text": plot_text(f"{quotas.what}, the largest first")}},
        "yaxis": {"title": {"text": "rows"}, "rangemode": "tozero", "tickformat": "~s"},
    }
    legend = [Key("kept", "var(--kept)", [0]), Key("dropped", "var(--dropped-soft)", [1])]
    return Plot(id, says, {"data": traces, "layout": layout}, _table(quotas.what, groups), 340, "", legend)


def _says(group: Group) -> str:
    share = quantity.share(group.kept, group.size)
    counts = f"{quantity.count(group.kept)} of {quantity.count(group.size)} kept ({share})"
    return f"{plot_text(group.name, 40)}<br>{counts}"


def _table(what: str, groups: Sequence[Group]) -> Table:
    rows = [
        [g.name, quantity.count(g.size), quantity.count(g.kept), quantity.share(g.kept, g.size)] for g in groups[:TABLE]
    ]
    if len(groups) > TABLE:
        rows.append([f"and {quantity.count(len(groups) - TABLE)} more, in report.json", "", "", ""])
    return Table([what, "rows", "kept", "share kept"], rows)
