"""What the report is made from: the finished artifacts of a run, by what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...filters.base import FILTERS, Filter
from ...shards.shard import Shard
from ..artifact import Artifact
from ..columns import ColumnStore, column_store
from ..config import Config
from ..filter_pool import Survivors
from ..stages.pool import shards_of


@dataclass(frozen=True)
class Link:
    """One filter of one subset's chain.

    Attributes:
        label: as in the subset's decisions, say ``4-top_fraction``.
        artifact: its decisions.
        previous: decision folder of the filter before, or None.
    """

    subset: str
    label: str
    artifact: Artifact
    previous: str | None

    @cached_property
    def filter(self) -> Filter:
        """The filter with its options."""
        options = self.artifact.receipt["identity"]["filter"]
        return FILTERS[options["type"]].model_validate(options)


@dataclass(frozen=True)
class RunData:
    """Finished artifacts of a run by the roles that `ReportStage` gives them; an unfinished run has fewer."""

    config: Config
    inputs: Mapping[str, Artifact]

    @property
    def pool(self) -> Artifact:
        return self.inputs["pool"]

    @cached_property
    def shards(self) -> list[Shard]:
        return shards_of(self.pool)

    @cached_property
    def store(self) -> ColumnStore:
        return column_store(self.inputs)

    def named(self, kind: str) -> dict[str, Artifact]:
        """Artifacts of the roles ``<kind>/<name>``, by name, in the config's order."""
        return {r.removeprefix(f"{kind}/"): a for r, a in self.inputs.items() if r.startswith(f"{kind}/")}

    @cached_property
    def chains(self) -> dict[str, list[Link]]:
        """The filters of every finished subset, in order."""
        found: dict[str, list[Link]] = {}
        for subset, artifact in self.named("subset").items():
            links: list[Link] = []
            for i, label in enumerate(artifact.receipt["identity"]["labels"]):
                previous = links[-1].artifact.data if links else None
                links.append(Link(subset, label, self.inputs[f"filter/{subset}/{i:02d}"], previous))
            found[subset] = links
        return found

    @cached_property
    def distinct_links(self) -> list[Link]:
        """Every filter once, though several subsets may share it."""
        found: dict[str, Link] = {}
        for chain in self.chains.values():
            for link in chain:
                found.setdefault(link.artifact.path, link)
        return list(found.values())

    def survivors(self, link: Link) -> Survivors:
        """The rows that reached a filter."""
        return Survivors(self.store, link.previous)


def short_options(option: Any) -> str:
    """Options that differ from their defaults, in a line: ``by dfn_score, keep 0.3``."""
    told = []
    for name, field in type(option).model_fields.items():
        value = getattr(option, name)
        if name != "type" and value != field.get_default(call_default_factory=True):
            text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            told.append(f"{name} {text}")
    return ", ".join(told)
