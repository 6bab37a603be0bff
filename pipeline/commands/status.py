"""`curate status`."""

from __future__ import annotations

import time

from rich.console import Console
from rich.table import Table

from ...errors import CurateError
from ...shards import storage
from ..config import load
from ..lock import holder
from ..run_folder import RunFolder


def show_status(path: str, overrides: list[str], out: Console) -> None:
    """Print the state of every stage; says so when the driver that wrote it is gone.

    Raises:
        CurateError: the run has not been started.
    """
    config, _ = load(path, overrides)
    folder = RunFolder.of(config)
    if not storage.exists(folder.status):
        raise CurateError(f"run {config.name!r} has not been started in workdir {config.workdir!r}")
    status = storage.read_json(folder.status)
    state = status["state"]
    if state == "running" and holder(config.workdir) is None:
        state = "killed (run the same command again to go on)"
    took = status["updated"] - status["began"]
    ago = time.time() - status["updated"]
    out.print(
        f"run {status['run']}: {state}, {took:.0f} s, last seen {ago:.0f} s ago (process {status['pid']} on "
        f"{status['host']})"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, justify in (
        ("stage", "left"),
        ("state", "left"),
        ("parts", "right"),
        ("done", "right"),
        ("time", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for stage in status["stages"]:
        parts = f"{stage['finished_parts']}/{stage['parts']}" if stage["parts"] else ""
        share = f"{stage['fraction']:.0%}" if stage["state"] in ("running", "done", "reused") else ""
        table.add_row(
            stage["name"], stage["state"], parts, share, f"{stage['seconds']:.0f} s" if stage["seconds"] else ""
        )
    out.print(table)
    if status["error"]:
        out.print(f"error: {status['error']}", markup=False, soft_wrap=True)
