"""Options of a moving average of the weights (`ema.py`)."""

from __future__ import annotations

from pydantic import Field

from ...registry import Options


class EmaOptions(Options):
    """An exponential moving average of the weights, which is published in their place."""

    decay: float = Field(0.9999, gt=0, lt=1, description="Share of the average that a step keeps.")
    warmup: bool = Field(
        True, description="Average over fewer steps at first: keep at most (1 + n) / (10 + n) at step n."
    )
    every: int = Field(1, ge=1, description="Steps between two updates; the decay is raised to this power.")
