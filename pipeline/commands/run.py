"""`curate run`."""

from __future__ import annotations

import os
import time

from rich.console import Console

from ...errors import StorageError
from ...shards import storage
from ..config import load
from ..lock import locked
from ..plan import make_plan
from ..progress import Progress
from ..retry import note_retry, parse_retry
from ..run_folder import RunFolder
from ..runner import Runner
from .check import check_resources
from .leaderboard import print_leaderboard
from .trainings import print_trainings


def run_config(
    path: str,
    overrides: list[str],
    out: Console,
    err: Console,
    wait: bool = False,
    until: str = "",
    retry: str = "",
) -> None:
    """Plan, run and publish; prints where the results are.

    Args:
        until: name of the last stage to run; empty = all.
        retry: failed rows of the pool to fetch again, say ``failed:timeout``; empty = none.

    Raises:
        CurateError: what went wrong. Everything that was finished is kept.
    """
    began = time.perf_counter()
    config, file = load(path, overrides)
    codes = parse_retry(retry) if retry else []
    plan = make_plan(config)
    folder = RunFolder.of(config)
    require_local(config.workdir)
    with locked(config.workdir, config.name, wait):
        check_resources(config)
        if retry:
            rows = note_retry(plan, folder.artifacts, codes)
            out.print(f"retry: {rows} rows are fetched again")
            plan = make_plan(config)
        if until:
            plan = plan.until(until)
        folder.begin(file.text, plan)
        todo = [s for s in plan.stages if not folder.artifact(s).is_done()]
        out.print(f"run {config.name}: {len(plan.stages)} stages, {len(plan.stages) - len(todo)} finished before")
        with Progress(config.name, [s.name for s in plan.stages], folder.status, err) as progress:
            runner = Runner(plan, folder.artifacts, config.cluster, progress)
            try:
                ran = runner.run()
            finally:
                folder.publish(plan)
    seconds = time.perf_counter() - began
    took = f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    out.print(f"done in {took}: {ran} stages run, {len(plan.stages) - ran} reused")
    if storage.exists(folder.report_data):
        report = storage.read_json(folder.report_data)
        print_leaderboard(report, out)
        print_trainings(report, out)
        out.print()
    for label, place in (
        ("shards", "shards"),
        ("report", folder.report),
        ("results", storage.join("report", "evaluation", "index.html")),
        ("subsets", "subsets"),
        ("release", "release"),
        ("models", "models"),
    ):
        target = place if place == folder.report else storage.join(folder.path, place)
        if storage.exists(target):
            out.print(f"  {label:8} {target}", soft_wrap=True, markup=False)


def require_local(workdir: str) -> None:
    """Refuse a workdir that is not a folder yet, before any work."""
    if not storage.is_local(workdir):
        raise StorageError(f"workdir {workdir!r} is not a folder: runs on object stores are not supported yet")
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise StorageError(f"workdir {workdir!r} is a file; choose another workdir")
