"""Trainings: how they went, and what each took.

What is the same for all of them is said once; what differs is a column. Speed is a fact about one run on one machine
and no property of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import quantity
from .curves import curve_plots
from .data import Curve, Training
from .section import Section, Titled

LEDE = (
    "How each model learned: one thin line per seed, thick for their mean. A lower loss on easier data is not a better "
    "model: compare accuracy, not these heights."
)


@dataclass(frozen=True)
class Fact:
    """One fact about trainings.

    Attributes:
        name: header of its column.
        of: the number, or None.
        text: the number as people read it.
        clock: whether it is a measurement of time, which is never the same twice.
    """

    name: str
    of: Callable[[Training], Any]
    text: Callable[[Any], str]
    clock: bool = False


def _device_of(training: Training) -> str | None:
    if not training.device:
        return None
    many = training.devices or 1
    return training.device if many == 1 else f"{many} × {training.device}"


def _both(counts: tuple[int, int]) -> str:
    return " · ".join(map(quantity.count, counts))


def _validated(name: str) -> Callable[[Training], float | None]:
    return lambda training: training.validation.get(name)


FACTS = (
    Fact("model", lambda t: t.model or None, str),
    Fact("recipe", lambda t: t.recipe or None, str),
    Fact("samples seen", lambda t: t.samples_seen, quantity.count),
    Fact("steps", lambda t: t.steps, quantity.count),
    Fact("distinct", lambda t: t.distinct, quantity.count),
    Fact("epochs", lambda t: t.epochs, quantity.value),
    Fact("parameters", lambda t: t.parameters, quantity.scaled),
    Fact("operations", lambda t: t.flops, quantity.operations),
    Fact("validation loss", _validated("clip_val_loss"), quantity.value),
    Fact("validation top-1", _validated("top1"), quantity.percent),
    Fact("image to text R@1", _validated("image_to_text_R@1"), quantity.percent),
    Fact("text to image R@1", _validated("text_to_image_R@1"), quantity.percent),
    Fact("corrupt, replaced", lambda t: (t.corrupt, t.replaced), _both),
    Fact("steps left out", lambda t: t.skipped, quantity.count),
    Fact("device", _device_of, str),
    Fact("time", lambda t: t.seconds, quantity.duration, True),
    Fact("samples/s", lambda t: t.samples_per_second, quantity.compact, True),
    Fact("data wait", lambda t: t.data_wait, quantity.percent, True),
    Fact("MFU", lambda t: t.mfu, quantity.percent, True),
    Fact("memory", lambda t: t.peak_bytes, quantity.size, True),
    Fact("GPU memory", lambda t: t.peak_gpu_bytes, quantity.size, True),
    Fact("starts", lambda t: t.sessions if t.sessions and t.sessions > 1 else None, quantity.count, True),
    Fact("cost", lambda t: t.cost, lambda x: f"{x:,.2f}" if x >= 0.01 or not x else f"<{quantity.NARROW}0.01", True),
)
QUIET = {(0, 0), 0}
"""Values that say that nothing happened; where no training has another, there is nothing to tell."""


def training_section(
    curves: Sequence[Curve], trainings: Sequence[Training], arms: Mapping[str, str], currency: str = ""
) -> Section:
    """The section; `arms` are the names of their colours."""
    plots = curve_plots(curves, {a: f"var(--{c})" for a, c in arms.items()}) if curves else []
    common, columns = split_facts(trainings)
    content = {
        "panels": [Titled(p.title, p) for p in plots],
        "trainings": trainings,
        "common": [(f.name, _told(f, trainings[0], currency)) for f in common],
        "columns": columns,
        "cells": [[(f.of(t), _told(f, t, currency)) for f in columns] for t in trainings],
        "total": _total(columns, trainings, currency),
        "colors": arms,
        "several_seeds": len({t.seed for t in trainings}) > 1,
    }
    return Section("training", "Training", "Training", LEDE, content, plots)


def split_facts(trainings: Sequence[Training]) -> tuple[list[Fact], list[Fact]]:
    """Facts that all trainings share, and those that need a column; what nobody knows is in neither."""
    common, columns = [], []
    for fact in FACTS:
        values = [fact.of(t) for t in trainings]
        if all(v is None or v in QUIET for v in values):
            continue
        alike = not fact.clock and len(set(values)) == 1
        (common if alike or len(trainings) == 1 else columns).append(fact)
    return common, columns


def _told(fact: Fact, training: Training, currency: str) -> str:
    value = fact.of(training)
    if value is None:
        return quantity.NONE
    return f"{fact.text(value)} {currency}".rstrip() if fact.name == "cost" else fact.text(value)


def _total(columns: Sequence[Fact], trainings: Sequence[Training], currency: str) -> list[str]:
    """Sums of what can be added up, a cell per column."""
    cells = []
    for fact in columns:
        known = [v for t in trainings if (v := fact.of(t)) is not None]
        adds = fact.name in ("time", "cost", "operations", "samples seen", "steps") and known
        text = fact.text(sum(known)) if adds else ""
        cells.append(f"{text} {currency}".rstrip() if adds and fact.name == "cost" else text)
    return cells
