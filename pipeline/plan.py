"""The plan of a run: its stages, in an order in which they can be done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from ..errors import ConfigError
from ..registry import unknown
from .config import Config
from .planner import Planner
from .stage import Stage

S = TypeVar("S", bound=Stage)


@dataclass
class Plan:
    """The stages of a run, in an order in which they can be done."""

    stages: list[Stage] = field(default_factory=list)

    def heights(self) -> dict[str, int]:
        """Longest way from each stage to the end of the run, in stages: what lies on a long way is started first."""
        heights = {s.name: 0 for s in self.stages}
        for stage in reversed(self.stages):
            for before in (*stage.inputs.values(), *stage.gates, *stage.after):
                if before.name in heights:
                    heights[before.name] = max(heights[before.name], heights[stage.name] + 1)
        return heights

    def until(self, name: str) -> Plan:
        """Only the stage with that name, or all whose names start with ``name/``, and what they need.

        Raises:
            ConfigError: there is no such stage.
        """
        wanted = {s.name for s in self.stages if s.name == name or s.name.startswith(f"{name}/")}
        if not wanted:
            raise ConfigError(f"--until: {unknown('stage', name, [s.name for s in self.stages])}")
        for stage in reversed(self.stages):
            if stage.name in wanted:
                wanted |= {before.name for before in (*stage.inputs.values(), *stage.gates)}
        return Plan([s for s in self.stages if s.name in wanted])

    def of(self, kind: type[S]) -> list[S]:
        """Stages of one kind, in order."""
        return [s for s in self.stages if isinstance(s, kind)]

    def named(self, name: str) -> Stage:
        """The stage with that name."""
        return next(s for s in self.stages if s.name == name)


def make_plan(config: Config) -> Plan:
    """Stages of a config.

    Raises:
        ConfigError: an input, model or weight file that the config names is missing, or a column that nothing makes.
    """
    return Plan(Planner(config).stages_of_run())
