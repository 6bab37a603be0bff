"""Options of mixing pictures; importing them needs no torch."""

from __future__ import annotations

from pydantic import Field

from ...registry import Options


class MixOptions(Options):
    """Mixed pictures and labels; see `mixup.py`."""

    mixup: float = Field(
        default=0.0,
        ge=0,
        description="Mixup: parameter of the shares' Beta distribution; 0 = no mixup.",
    )
    cutmix: float = Field(
        default=0.0,
        ge=0,
        description="Cutmix: parameter of the areas' Beta distribution; 0 = no cutmix.",
    )
    probability: float = Field(default=1.0, ge=0, le=1, description="Share of the pairs that are mixed at all.")
    cutmix_share: float = Field(
        default=0.5, ge=0, le=1, description="With both: share of the mixed pairs that are cut instead of blended."
    )

    @property
    def on(self) -> bool:
        """Whether anything is mixed."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)
