"""`curate whatif CONFIG SUBSET FILTER`: what one more filter would drop of what a subset keeps.

The filter runs as it would at the end of the subset's chain, by the same code, but in this process and over a temporary
folder: nothing is published, so it costs one filter and leaves no trace. It reads what finished stages made; it makes
no column.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import ConfigError, CurateError
from ...registry import Options, unknown
from ..artifact import Artifact
from ..calls import Resources, single_threaded
from ..config import Config, FilterOption, load
from ..config_file import ConfigFile
from ..part import run_bundle, run_part
from ..plan import make_plan
from ..planner import Planner
from ..reporting.examples import Example, examples
from ..reporting.scores import options_in_short
from ..reporting.source import RunData
from ..reporting.spread import AT, Spread, spreads
from ..stage import Work
from ..stages.filtering import FilterStage
from .explain import visible
from .finished import finished

T = TypeVar("T")
CAPTION = 60  # characters of a caption that are shown


class OneFilter(Options):
    """The filter on the command line."""

    filter: FilterOption


class HereAndNow(Work):
    """`Work` in this process, one part after another, into a folder that nobody else sees."""

    def __init__(self, folder: str, inputs: Mapping[str, Artifact]) -> None:
        self.artifact, self.inputs, self.companions = Artifact(folder), inputs, []

    def map(
        self,
        function: Callable[..., dict[str, Any]],
        parts: Mapping[str, tuple[Any, ...]],
        resources: Resources = Resources(),  # noqa: B008  (immutable)
    ) -> dict[str, dict[str, Any]]:
        return {name: run_part(function, self.artifact, name, arguments) for name, arguments in parts.items()}

    def map_bundles(
        self,
        function: Callable[..., list[dict[str, Any]]],
        parts: Mapping[str, tuple[Any, ...]],
        weights: Mapping[str, int],
        most: int,
        resources: Resources = Resources(),  # noqa: B008  (immutable)
    ) -> dict[str, dict[str, Any]]:
        return {name: run_bundle(function, self.artifact, [name], [parts[name]])[0] for name in parts}

    def gather(self, function: Callable[..., T], arguments: list[tuple[Any, ...]]) -> list[T]:
        return [function(*one) for one in arguments]

    def gpus(self) -> int:
        return 0


@dataclass(frozen=True)
class Shown:
    """One sample: what it is, and the value that the filter saw."""

    uid: str
    caption: str | None
    value: float | None
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a filter would do.

    Attributes:
        summary: as a filter stage's: ``entered``, ``kept``, ``samples``, ``reasons``, ``facts``.
        spreads: of the values of kept (True) and dropped (False) rows.
        shown: what they are -> examples.
    """

    filter: Any
    summary: dict[str, Any]
    spreads: dict[bool, Spread]
    shown: dict[str, list[Shown]]


def show_what_if(path: str, subset: str, text: str, out: Console, size: int = 5, as_json: bool = False) -> None:
    """Print what a filter, given as YAML, would keep and drop of a subset."""
    found = what_if(path, subset, text, size)
    if as_json:
        out.out(json.dumps(_plain(found), ensure_ascii=False, allow_nan=False), highlight=False)
    else:
        _print(found, subset, out)


def what_if(path: str, subset: str, text: str, size: int = 5) -> Outcome:
    """Apply one more filter to what a subset keeps.

    Raises:
        ConfigError: the filter's options are wrong, the config has no such subset, or nothing makes a column.
        CurateError: a stage that the filter reads is not finished.
        DataError: the filter cannot decide, or keeps nothing.
    """
    config, stage = plan_one_more(path, subset, text)
    inputs = finished(config, stage.inputs)
    for role, needed in stage.inputs.items():
        if role not in inputs:
            made = needed.fingerprint in {s.fingerprint for s in make_plan(load(path)[0]).stages}
            hint = (
                f"`curate run --until {needed.name}` makes it" if made else "the config does not make it; add it there"
            )
            raise CurateError(f"{stage.filter.type} reads {needed.name!r}, which is not finished: {hint}")
    run = RunData(config, inputs)
    with tempfile.TemporaryDirectory(prefix="curate-whatif-") as folder, single_threaded():
        work = HereAndNow(folder, inputs)
        summary = stage.run(work)
        found = examples(run, work.out, summary["facts"], size, config.seed)
        near = {"just kept": found.just_kept, "just dropped": found.just_dropped}
        drawn = {"kept, at random": found.kept, "dropped, at random": found.dropped}
        chosen = near if found.just_kept or found.just_dropped else drawn
        return Outcome(
            stage.filter,
            summary,
            spreads(work.out, [shard.name for shard in run.shards]),
            {title: [_shown(run, e) for e in some] for title, some in chosen.items()},
        )


def plan_one_more(path: str, subset: str, text: str) -> tuple[Config, FilterStage]:
    """The config with one more subset, which is `subset` and the filter; and the stage of that filter."""
    config, file = load(path)
    if subset not in config.subsets:
        raise ConfigError(unknown("subset", subset, config.subsets))
    wrapped = text if text.lstrip().startswith("{") else f"{{{text}}}"
    one = ConfigFile(f"filter: {wrapped}", "FILTER")
    one.validate(OneFilter)
    name = f"{subset}.whatif"
    while name in config.subsets:
        name += "_"
    subsets = file.values.setdefault("subsets", {"everything": []})
    subsets[name] = [*(subsets[subset] or []), one.values["filter"]]
    extended = file.validate(Config)
    planner = Planner(extended)
    planner.stages_of_run()
    return extended, planner.chains[name][-1]


def _shown(run: RunData, example: Example) -> Shown:
    import pyarrow as pa

    table = run.shards[example.part].read_table(["uid", "caption"]).take(pa.array([example.row]))
    value = example.value if math.isfinite(example.value) else None
    return Shown(table["uid"][0].as_py(), table["caption"][0].as_py(), value, example.reason)


def _print(found: Outcome, subset: str, out: Console) -> None:
    summary = found.summary
    entered, kept = summary["entered"], summary["kept"]
    options = options_in_short(found.filter)
    told = f"{found.filter.type}{f' ({options})' if options else ''}"
    out.print(
        f"of the {entered:,} rows that {subset} keeps, {told} would keep {kept:,} and drop {entered - kept:,} "
        f"({100 * (entered - kept) / entered:.1f} %)",
        markup=False,
        emoji=False,
        soft_wrap=True,
    )
    if summary["samples"] != kept:
        out.print(f"with repeats, {summary['samples']:,} samples stay")
    for reason, n in sorted(summary["reasons"].items(), key=lambda item: (-item[1], item[0])):
        out.print(f"  {n:>12,}  {visible(reason)}", markup=False, emoji=False)
    if any(spread.quantiles for spread in found.spreads.values()):
        out.print()
        out.print(_spread_table(found.spreads))
    for title, shown in found.shown.items():
        if shown:
            out.print()
            out.print(_samples_table(title, shown))


def _spread_table(both: Mapping[bool, Spread]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("value")
    for share in AT:
        table.add_column({0.0: "lowest", 0.5: "median", 1.0: "highest"}.get(share, f"{share:.0%}"), justify="right")
    table.add_column("none", justify="right")
    for side, name in ((True, "kept"), (False, "dropped")):
        quantiles = [f"{value:.6g}" for value in both[side].quantiles] or [""] * len(AT)
        table.add_row(name, *quantiles, f"{both[side].missing:,}")
    return table


def _samples_table(title: str, shown: list[Shown]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    table.add_column("caption", overflow="ellipsis", no_wrap=True)
    for one in shown:
        caption = visible(one.caption or "")
        short = caption if len(caption) <= CAPTION else caption[: CAPTION - 1] + "…"
        value = "" if one.value is None else f"{one.value:.6g}"
        table.add_row(Text(visible(one.uid)), value, Text(visible(one.reason)), Text(short))
    return table


def _plain(found: Outcome) -> dict[str, Any]:
    """Strict JSON."""
    return {
        "filter": found.filter.model_dump(mode="json", exclude_defaults=True) | {"type": found.filter.type},
        **found.summary,
        "values": {
            "kept" if side else "dropped": {
                "rows": spread.rows,
                "without": spread.missing,
                "quantiles": {
                    f"{at:g}": q if math.isfinite(q) else None for at, q in zip(AT, spread.quantiles, strict=False)
                },
            }
            for side, spread in found.spreads.items()
        },
        "examples": {title: [vars(one) for one in shown] for title, shown in found.shown.items()},
    }
