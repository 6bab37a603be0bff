"""`curate report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from rich.console import Console

from ...errors import CurateError
from ...shards import storage
from ..config import load
from ..plan import make_plan
from ..run_folder import RunFolder
from ..stages.report import build_run_report


def write_report(path: str, overrides: list[str], out: Console, open_browser: bool = False) -> None:
    """Build the report from what is finished, and print where it is.

    Raises:
        CurateError: not even the pool is finished.
    """
    config, _ = load(path, overrides)
    plan = make_plan(config)
    folder = RunFolder.of(config)
    report = plan.named("report")
    finished = {r: folder.artifact(s) for r, s in report.inputs.items() if folder.artifact(s).is_done()}
    if "pool" not in finished:
        raise CurateError("the pool is not ingested yet, so there is nothing to report; `curate run` first")
    build_run_report(config, finished, storage.join(folder.path, "report"))
    unfinished = sum(not folder.artifact(s).is_done() for s in plan.stages if s is not report)
    note = f" ({unfinished} stages are not finished; their parts of the page are left out)" if unfinished else ""
    out.print(f"report {folder.report}{note}", soft_wrap=True, markup=False)
    if open_browser:
        webbrowser.open(Path(folder.report).absolute().as_uri())
