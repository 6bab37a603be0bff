"""The report's leaderboard as a table on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = 5  # of metrics or arms on a terminal


def print_leaderboard(report: dict[str, Any], out: Console) -> None:
    """Print arms against metrics, best first; `report` is the value of ``report.json``. Nothing if it has none."""
    board = report.get("leaderboard")
    if not board:
        return
    metrics = board["metrics"]
    if len(metrics) > COLUMNS:
        _print_lines(board, out)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("subset")
    table.add_column("images", justify="right")
    for metric in metrics:
        table.add_column(metric["label"], justify="right")
    table.add_column(f"against {board['control']}", justify="right", no_wrap=True)
    for arm in board["arms"]:
        cells = [_estimate(arm["scores"].get(m["name"])) for m in metrics]
        difference = arm["differences"].get(metrics[0]["name"])
        table.add_row(arm["name"], f"{arm['unique_images']:,}", *cells, _difference(difference))
    out.print()
    out.print(table)
    out.print(f"percent; {board['interval']}; the last column is paired by seed", style="dim")


def _print_lines(board: dict[str, Any], out: Console) -> None:
    """A line per metric, a column per arm: for more metrics than a terminal is wide."""
    arms = board["arms"][:COLUMNS]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for arm in arms:
        table.add_column(arm["name"], justify="right", no_wrap=True)
    for metric in board["metrics"]:
        table.add_row(metric["label"], *(_estimate(arm["scores"].get(metric["name"])) for arm in arms))
    out.print()
    out.print(table)
    more = len(board["arms"]) - len(arms)
    out.print(f"percent; {board['interval']}{f'; {more} more subsets in the report' if more else ''}", style="dim")


def _estimate(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    if value["low"] is None:
        return f"{100 * value['mean']:.1f}"
    return f"{100 * value['mean']:.1f} ± {50 * (value['high'] - value['low']):.1f}"


def _difference(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    if value["low"] is None:
        return f"{100 * value['mean']:+.1f}"
    return f"{100 * value['mean']:+.1f} [{100 * value['low']:+.1f}, {100 * value['high']:+.1f}]"


def print_comparison(comparison: dict[str, Any], out: Console) -> None:
    """A line per main metric, a column per arm, in the comparison's order, and who differs from the control."""
    arms = comparison["arms"][:COLUMNS]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for arm in arms:
        table.add_column(arm["name"].replace("/", "/\n"), justify="right", no_wrap=True)
    for measure in comparison["measures"]:
        if measure["main"]:
            table.add_row(measure["label"], *(_compared(comparison, measure, i) for i in range(len(arms))))
    out.print(table)
    told = "percent, 95 % intervals"
    if comparison["control"] is not None and len(comparison["arms"]) > 1:
        name = comparison["arms"][comparison["control"]]["name"]
        told += f"; + and - : better and worse than {name}, its paired interval excludes 0"
    more = len(comparison["arms"]) - len(arms)
    out.print(told + (f"; {more} more arms on the page" if more else ""), style="dim", markup=False)
    for different in comparison["differs"]:
        out.print(f"note: {different['sentence']}", markup=False)


def _compared(comparison: dict[str, Any], measure: dict[str, Any], place: int) -> str:
    value = comparison["arm_values"][measure["id"]][place]
    if value is None:
        return "–"
    mean, low, high, _ = value
    told = f"{100 * mean:.1f}"
    if low is not None and abs(low + high - 2 * mean) < 1e-5:
        told += f" ± {50 * (high - low):.1f}"
    elif low is not None:
        told += f" [{100 * low:.1f}, {100 * high:.1f}]"
    found = (comparison["paired"].get(measure["id"]) or [None] * (place + 1))[place]
    if found and found["low"] is not None and (found["low"] > 0 or found["high"] < 0):
        told += " +" if (found["low"] > 0) == measure["higher_is_better"] else " -"
    return told
