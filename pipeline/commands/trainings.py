"""What the trainings of a run did, as a table on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

MOST = 24  # rows; the report has all
RETRIEVAL = ("image_to_text_R@1", "text_to_image_R@1")


def print_trainings(report: dict[str, Any], out: Console) -> None:
    """Print a row per model: its loss, how it did on the validation set, and how fast it was.

    Args:
        report: the value of ``report.json``; nothing is printed if it has no trainings.
    """
    trainings: list[dict[str, Any]] = report.get("trainings") or []
    if not trainings:
        return
    columns = [("loss", lambda t: _number(t.get("loss")))]
    columns += [("validation loss", lambda t: _number(_validated(t, "clip_val_loss")))]
    columns += [("validation top-1", lambda t: _share(_validated(t, "top1")))]
    columns += [("validation R@1", lambda t: _share(_mean(t)))]
    columns += [("samples/s", lambda t: _rate(t.get("samples_per_second")))]
    columns += [("time", lambda t: _time(t.get("seconds")))]
    rows = [[cell(t) for _, cell in columns] for t in trainings]
    told = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    for i in told:
        table.add_column(columns[i][0], justify="right", no_wrap=True)
    for training, row in list(zip(trainings, rows, strict=True))[:MOST]:
        table.add_row(f"{training['arm']}/seed{training['seed']}", *(row[i] for i in told))
    out.print()
    out.print(table)
    if len(trainings) > MOST:
        out.print(f"and {len(trainings) - MOST} more; see the report", style="dim")


def _validated(training: dict[str, Any], name: str) -> float | None:
    return (training.get("validation") or {}).get(name)


def _mean(training: dict[str, Any]) -> float | None:
    """Recall at 1 of both directions."""
    values = [v for name in RETRIEVAL if (v := _validated(training, name)) is not None]
    return sum(values) / len(values) if values else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
