"""The report's leaderboard as a table on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_leaderboard(report: dict[str, Any], out: Console) -> None:
    """Print arms against metrics, best first; `report` is the value of ``report.json``. Nothing if it has none."""
    board = report.get("leaderboard")
    if not board:
        return
    metrics = board["metrics"]
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
