"""Several objectives at once, each with its weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..features import Features
from ..processes.world import World
from .base import Counts, Objective, couples_samples


class Sum:
    """The weighted sum of objectives; every term keeps its name.

    Args:
        parts: (weight, objective). Their order is the order of their exchanges between processes.
    """

    def __init__(self, parts: Sequence[tuple[float, Objective]]) -> None:
        self.parts = tuple(parts)

    @property
    def couples_samples(self) -> bool:
        """Whether any part does."""
        return any(couples_samples(objective) for _, objective in self.parts)

    def terms(self, features: Features, world: World) -> dict[str, torch.Tensor]:
        """All terms, weights applied.

        Raises:
            ValueError: two objectives have a term of the same name.
        """
        terms: dict[str, torch.Tensor] = {}
        for weight, objective in self.parts:
            for name, term in objective.terms(features, world).items():
                if name in terms:
                    raise ValueError(f"two objectives have a term {name!r}")
                terms[name] = term if weight == 1 else weight * term
        return terms

    def counts(self, features: Features) -> dict[str, torch.Tensor]:
        """Of all parts that count."""
        counts: dict[str, torch.Tensor] = {}
        for _, objective in self.parts:
            if isinstance(objective, Counts):
                counts.update(objective.counts(features))
        return counts
