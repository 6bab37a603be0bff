"""`curate evaluate`: models that exist, on sets that exist, without a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ...errors import ConfigError
from ...eval.evaluate import evaluate_models
from ...eval.suites import SUITES, Suite, parse_suites
from ...registry import unknown
from ...shards import storage
from ...shards.evalsets.base import EvalSet
from ...shards.evalsets.builtin import BUILTIN
from ...shards.evalsets.source import EvalSource


def evaluate_named(
    models: Sequence[str],
    data: Sequence[str],
    suites: Sequence[str],
    target: str,
    out: Console,
    err: Console,
    pretrained: str = "",
    device: str = "auto",
) -> None:
    """Evaluate all models in one pass over the sets and print what came out.

    Args:
        models: what `load_encoder` takes: folders or names.
        data: built-in names, paths, or mappings in YAML.
        suites: names, or mappings in YAML.
        target: folder for the results, one folder per model in it; an interrupted evaluation goes on from there.
        pretrained: local checkpoint, for one model that is given by name.

    Raises:
        ConfigError: an unknown suite, option, set or model.
    """
    if pretrained and len(models) > 1:
        raise ConfigError("--pretrained belongs to one model; name the others by folders that hold their weights")
    names = _names(models)
    chosen = _suites(suites)
    sets = [one for text in data for one in _sets(text, target)]
    cache = storage.join(target, "features")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=err)
    task = bar.add_task("texts and pictures", total=None)

    def step(done: int, total: int) -> None:
        bar.start()  # not before there is work: what is wrong with sets or models is told without a bar
        bar.update(task, completed=done, total=total)

    try:
        found = evaluate_models(
            {name: (model, pretrained or None) for name, model in names.items()},
            sets,
            chosen,
            {name: storage.join(target, name) for name in names},
            cache,
            device,
            step,
        )
    finally:
        bar.stop()
    out.print(results_table(found))
    out.print(f"percent; results in {target}", style="dim", markup=False, highlight=False)


def _names(models: Sequence[str]) -> dict[str, str]:
    """Models by as much of the ends of their paths as tells them apart."""
    parts = [model.strip("/").split("/") for model in models]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["_".join(path[-length:]) for path in parts]
        if len(set(names)) == len(models):
            return dict(zip(names, models, strict=True))
    raise ConfigError("a model is named twice")


def _suites(texts: Sequence[str]) -> list[Suite]:
    values = [_value("--suite", text) for text in texts]
    for name in (value.get("type") if isinstance(value, dict) else value for value in values):
        if name not in list(SUITES):
            raise ConfigError(f"--suite: {unknown('suite', str(name), SUITES)}")
    try:
        return parse_suites(values)
    except ValidationError as error:
        raise ConfigError(f"--suite: {'; '.join(e['msg'] for e in error.errors())}") from error


def _sets(text: str, target: str) -> list[EvalSet]:
    try:
        source = EvalSource.parse(_value("--data", text))
    except ValidationError as error:
        raise ConfigError(f"--data {text}: {'; '.join(e['msg'] for e in error.errors())}") from error
    if source.path in BUILTIN:
        folder = storage.join(target, "evalsets", f"wds_{source.path}")
        BUILTIN[source.path](folder)
        source = source.at(folder)
    return source.open()


def _value(option: str, text: str) -> Any:
    """A name as it is, a mapping as YAML writes it."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{option} {text}: not YAML: {error}") from error


def results_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """One line per set and suite, one column per model: the main metric and its interval."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("set", "suite", "metric", "n"):
        table.add_column(title, justify="right" if title == "n" else "left")
    for name in found:
        table.add_column(name, justify="right")
    for records in zip(*(one["results"] for one in found.values()), strict=True):
        first = records[0]
        cells = [_cell(record) for record in records]
        table.add_row(first["dataset"], first["suite"], first["main_metric"] or "–", f"{first['n']:,}", *cells)
    return table


def _cell(record: Mapping[str, Any]) -> str:
    value = record["metrics"].get(record["main_metric"]) if record["main_metric"] else None
    if value is None:
        return "–"
    told = f"{100 * value:.1f}"
    if record.get("wilson95") and record["main_metric"].endswith("acc1"):
        low, high = record["wilson95"]
        told += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return told
