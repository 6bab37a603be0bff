"""What a report shows of the run itself: time, memory and money by stage, and what it takes to do it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class StageTime:
    """What one stage cost.

    Attributes:
        state: ``run`` in this run, or ``reused`` from an earlier one.
        start: seconds since the run began; None = unknown.
        parts, items: how much work; `unit` names an item ("rows", "images").
        bytes: size of its output.
        cost: in `Stages.currency`.
    """

    name: str
    seconds: float
    state: Literal["run", "reused"] = "run"
    start: float | None = None
    parts: int | None = None
    items: int | None = None
    unit: str = "items"
    bytes: int | None = None
    peak_bytes: int | None = None
    cost: float | None = None


@dataclass
class Stages:
    """Time, memory and money by stage."""

    stages: Sequence[StageTime]
    wall_seconds: float | None = None
    currency: str = ""


@dataclass
class Provenance:
    """All that is needed to do it again.

    Attributes:
        config: the config file's text.
        fingerprints: stage -> fingerprint.
        machine: label -> value.
    """

    config: str = ""
    command: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    seeds: Sequence[int] = ()
