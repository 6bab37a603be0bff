"""`curate overlap`: which rows the subsets of a config have in common."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from ...errors import ConfigError, CurateError
from ...eval.report.data import Overlap
from ...registry import unknown
from ..config import load
from ..plan import make_plan
from ..reporting.overlap import overlap_of
from ..stages.filtering import SubsetStage
from .finished import finished, finished_run

SAYS = {
    "share": "percent of the row's subset that is in the column's too",
    "rows": "rows in both; on the diagonal, all rows of the subset",
    "jaccard": "rows in both divided by rows in either",
}


def show_overlap(path: str, overrides: list[str], out: Console, view: str = "share", as_json: bool = False) -> None:
    """Print the overlap of all finished subsets; as JSON, all three views of it.

    Raises:
        CurateError: no subset is finished.
    """
    if view not in SAYS:
        raise ConfigError(unknown("view", view, SAYS))
    config, _ = load(path, overrides)
    plan = make_plan(config)
    run = finished_run(config, plan)
    stages = {stage.name.removeprefix("subset/"): stage for stage in plan.of(SubsetStage)}
    folders = {name: artifact.data for name, artifact in finished(config, stages).items()}
    folders |= {name: artifact.data for name, artifact in run.named("subset").items()}  # equal ones are one stage
    folders = {name: folders[name] for name in config.subsets if name in folders}
    if not folders:
        raise CurateError("no subset is finished yet; `curate run` first")
    overlap = overlap_of(folders, [shard.name for shard in run.shards])
    if as_json:
        out.out(json.dumps(_plain(overlap), ensure_ascii=False), highlight=False)
        return
    out.print(overlap_table(overlap, view))
    missing = [name for name in config.subsets if name not in folders]
    told = SAYS[view] + (f"; not finished: {', '.join(missing)}" if missing else "")
    out.print(told, style="dim", markup=False, emoji=False)


def overlap_table(overlap: Overlap, view: str) -> Table:
    """One line per subset; columns are numbered as the lines are, so that many fit beside each other."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("subset", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    n = len(overlap.subsets)
    for j in range(n):
        table.add_column(str(j + 1), justify="right", no_wrap=True)
    for i, name in enumerate(overlap.subsets):
        cells = [_cell(overlap, i, j, view) for j in range(n)]
        table.add_row(str(i + 1), name, f"{overlap.common[i][i]:,}", *cells)
    return table


def _cell(overlap: Overlap, i: int, j: int, view: str) -> str:
    if view == "rows":
        return f"{overlap.common[i][j]:,}"
    value = overlap.share(i, j) if view == "share" else overlap.jaccard(i, j)
    if value is None:
        return "–"
    return f"{100 * value:.0f}" if view == "share" else f"{value:.2f}"


def _plain(overlap: Overlap) -> dict[str, object]:
    n = range(len(overlap.subsets))
    return {
        "subsets": list(overlap.subsets),
        "rows": [list(row) for row in overlap.common],
        "share": [[overlap.share(i, j) for j in n] for i in n],
        "jaccard": [[overlap.jaccard(i, j) for j in n] for i in n],
    }
