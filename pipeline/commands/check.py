"""`curate check`: everything that can be known to be wrong before any work."""

from __future__ import annotations

import os
import shutil
import tempfile

import psutil
from rich.console import Console

from ...errors import ConfigError, StorageError
from ...eval.opened import open_sets
from ...shards import storage
from ...shards.evalsets.builtin import BUILTIN
from ...shards.evalsets.check import check
from ..config import Config, load
from ..plan import make_plan
from ..stages.evaluation import source_identity

MIN_FREE_DISK = 200 * 2**20
MEMORY_PER_WORKER = 700 * 2**20  # an idle worker with torch loaded


def check_config(path: str, overrides: list[str], out: Console) -> None:
    """Validate, plan and look at the machine; prints what it looked at.

    Raises:
        CurateError: the first thing that is wrong.
    """
    config, _ = load(path, overrides)
    out.print(f"ok  config {path}: {len(config.scores)} scores, {len(config.subsets)} subsets")
    evaluation = check_evaluation(config)  # before planning, which tells the first problem alone
    plan = make_plan(config)
    out.print(f"ok  inputs, models and weights: {len(plan.stages)} stages planned")
    for line in [*evaluation, *check_resources(config)]:
        out.print(line, soft_wrap=True, markup=False)


def check_evaluation(config: Config) -> list[str]:
    """The evaluation sets of the config, and that each has a suite and each suite a set.

    Built-in sets are written into a temporary folder for it, a second or so each.

    Raises:
        ConfigError: everything that is missing in them.
        ConfigError: a suite or a set would measure nothing.
    """
    if config.eval is None:
        return []
    told, given = [], []
    for source in config.eval.data:
        if source.path in BUILTIN:
            continue
        if storage.exists(source.path):
            given.append(source)
            continue
        try:
            source_identity(source, "eval.data")
        except ConfigError as error:
            told.append(str(error))
    found = check(given)
    if told or found.problems:
        raise ConfigError("\n".join(dict.fromkeys([*told, *found.problems])))
    with tempfile.TemporaryDirectory(prefix="curate-check-") as folder:
        sources = []
        for source in config.eval.data:
            if source.path in BUILTIN:
                BUILTIN[source.path](place := os.path.join(folder, f"wds_{source.path}"))
                source = source.at(place)
            sources.append(source)
        open_sets([one for source in sources for one in source.open()], config.eval.suites)
    return [f"ok  evaluation set {one.line()}" for one in found.sets]


def check_resources(config: Config) -> list[str]:
    """Disk and memory of this machine.

    Raises:
        StorageError: the workdir cannot be written, or has too little room.
    """
    lines = []
    place = config.workdir
    while not os.path.exists(place):
        place = os.path.dirname(os.path.abspath(place))
    if not os.access(place, os.W_OK):
        raise StorageError(f"workdir {config.workdir!r} cannot be written (no permission in {place!r})")
    free = shutil.disk_usage(place).free
    if free < MIN_FREE_DISK:
        raise StorageError(
            f"workdir {config.workdir!r} has {free / 2**20:.0f} MB free; at least {MIN_FREE_DISK / 2**20:.0f} MB are "
            "needed: free some space, or choose another workdir"
        )
    lines.append(f"ok  disk: {free / 2**30:.1f} GB free in {config.workdir}")
    if config.cluster.address in ("local", "processes"):
        workers = config.cluster.workers or os.cpu_count() or 1
        memory = psutil.virtual_memory().available
        need = workers * MEMORY_PER_WORKER
        word = "ok " if memory > need else "low"
        lines.append(
            f"{word} memory: {memory / 2**30:.1f} GB available, about {need / 2**30:.1f} GB for {workers} workers"
        )
    return lines
