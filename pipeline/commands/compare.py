"""`curate compare`: the models of several finished runs on one page."""

from __future__ import annotations

import os
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ...errors import ConfigError, CurateError
from ...shards import storage
from ..config import load
from ..reporting.evaluation_page import write_evaluation
from ..run_folder import RunFolder
from ..run_results import RunResults, read_run
from .leaderboard import print_comparison


def compare_runs(
    runs: Sequence[str],
    target: str,
    out: Console,
    control: str = "",
    encoders: bool = False,
    shifts: Sequence[str] = (),
    open_browser: bool = False,
) -> None:
    """Write the page and ``results.parquet`` into `target`, and print the leaderboard.

    Args:
        runs: folders of runs, or their configs.
        control: arm that the others are compared with; default: the first.
        encoders: whether filter networks and loaded models are arms, too.
        shifts: ``SET=SHIFTED,SHIFTED...`` for effective robustness.

    Raises:
        CurateError: a run has no results, two have one name, or there is no such arm.
    """
    found = [read_run(_folder(run)) for run in runs]
    names = [run.name for run in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CurateError(f"two runs are called {twice!r}; a name is a run's row on the page, so they must differ")
    pages = [_relative(run, target) for run in found]
    comparison = write_evaluation(
        found, target, title=_title(names), control=control, encoders=encoders, pages=pages, shifts=_shifts(shifts)
    )
    print_comparison(comparison, out)
    page = storage.join(target, "index.html")
    out.print(f"page {page}", soft_wrap=True, markup=False)
    if open_browser:
        webbrowser.open(Path(page).absolute().as_uri())


def _title(names: Sequence[str]) -> str:
    return " · ".join(names) if len(names) <= 4 else f"{' · '.join(names[:3])} and {len(names) - 3} more"


def _shifts(texts: Sequence[str]) -> dict[str, list[str]] | None:
    found = {}
    for text in texts:
        reference, sign, names = text.partition("=")
        if not sign or not reference or not names:
            raise ConfigError(f"--shift {text}: write it as SET=SHIFTED,SHIFTED")
        found[reference] = names.split(",")
    return found or None


def _folder(run: str) -> str:
    if run.endswith((".yaml", ".yml")):
        config, _ = load(run)
        return RunFolder.of(config).path
    if not storage.exists(run):
        raise ConfigError(f"there is no run at {run!r}; give its folder (runs/NAME) or its config file")
    return run


def _relative(run: RunResults, target: str) -> str:
    """Where a run's own report is, seen from the page; "" across disks and URLs."""
    if run.page is None or not storage.is_local(run.page) or not storage.is_local(target):
        return ""
    return os.path.relpath(run.page, target).replace(os.sep, "/")
