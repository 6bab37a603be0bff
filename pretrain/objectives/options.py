"""Options of losses over images, captions and teachers. Importing this is cheap; `contrastive_objective` is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ...registry import Options

if TYPE_CHECKING:
    from .base import Objective

Weight = Annotated[float, Field(gt=0)]


class PairLoss(Options):
    """What the losses over image-text pairs have in common."""

    groups: int = Field(
        default=1,
        ge=1,
        description="Runs of the batch within which pairs are compared; 1 = all with all (M2-Encoder: more).",
    )
    chunk: int = Field(
        default=1024, ge=1, description="Images compared at a time: bounds memory, changes nothing else."
    )
    matryoshka: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(),
        description="Lengths of prefixes of the features that shall be features too, each a loss of its own.",
    )
    matryoshka_weights: tuple[Weight, ...] | None = Field(
        default=None, description="Weight of each prefix's loss; none = 1, as much as the whole features'."
    )

    @model_validator(mode="after")
    def _weights_fit(self) -> PairLoss:
        if len(set(self.matryoshka)) < len(self.matryoshka):
            raise ValueError(f"matryoshka: a length is given twice in {list(self.matryoshka)}")
        if self.matryoshka_weights is not None and len(self.matryoshka_weights) != len(self.matryoshka):
            raise ValueError(
                f"matryoshka_weights: {len(self.matryoshka_weights)} weights for {len(self.matryoshka)} lengths"
            )
        return self


class ClipLoss(PairLoss):
    """CLIP's: a softmax over the captions of the batch, and over its images."""

    loss: Literal["clip"] = "clip"


class SigLipLoss(PairLoss):
    """SigLIP's: a yes or no for every pair. The model needs a logit bias."""

    loss: Literal["siglip"] = "siglip"
    exchange: Literal["gather", "ring", "both"] = Field(
        default="gather",
        description="How captions travel between processes: gather = all at once, ring = block by block around all "
        "processes (less memory, more steps), both = half of each block either way round. The loss is the same.",
    )


ContrastiveLoss = Annotated[ClipLoss | SigLipLoss, Field(discriminator="loss")]


class TeacherLoss(Options):
    """How the student follows one teacher."""

    kind: Literal["logits", "features", "classes"] = Field(
        default="logits",
        description="What is compared: logits = similarities of images and captions within the batch, features = the "
        "features themselves (projected if their lengths differ), classes = a classifier's logits.",
    )
    weight: float = Field(default=1.0, gt=0, description="Factor of this loss.")
    distance: Literal["cosine", "squared"] = Field(default="cosine", description="Of features: 1 - cosine, or squared.")
    temperature: float = Field(default=1.0, gt=0, description="Of classes: both models' logits are divided by it.")


class SupConLoss(Options):
    """Supervised contrastive loss: images with a label in common are positives."""

    weight: float = Field(default=1.0, gt=0, description="Factor of this loss.")
    temperature: float = Field(default=0.1, gt=0, description="Cosines are divided by it.")
    chunk: int = Field(
        default=1024, ge=1, description="Images compared at a time: bounds memory, changes nothing else."
    )


class PairLosses(Options):
    """All losses that compare samples of a batch, or the student with its teachers."""

    contrastive: ContrastiveLoss | None = Field(
        default=ClipLoss(), description="Images against captions; none = not at all."
    )
    weight: float = Field(default=1.0, gt=0, description="Factor of the contrastive loss.")
    teachers: tuple[TeacherLoss, ...] = Field(default=(), description="One loss per teacher, in their order.")
    supcon: SupConLoss | None = Field(
        default=None, description="Images against images of their class; none = not at all."
    )


def contrastive_objective(options: PairLosses) -> Objective:
    """The weighted sum of the losses that `options` name."""
    from .distill import DistillObjective
    from .supcon import SupConObjective
    from .weighted_sum import Sum

    parts: list[tuple[float, Objective]] = []
    pairs = options.contrastive
    if pairs is not None:
        parts.append((options.weight, _pair_objective(pairs)))
    groups, chunk = (1, 1024) if pairs is None else (pairs.groups, pairs.chunk)
    for place, teacher in enumerate(options.teachers):
        objective = DistillObjective(place, teacher.kind, teacher.distance, teacher.temperature, groups, chunk)
        parts.append((teacher.weight, objective))
    if options.supcon is not None:
        parts.append((options.supcon.weight, SupConObjective(options.supcon.temperature, options.supcon.chunk)))
    return Sum(parts)


def _pair_objective(options: ClipLoss | SigLipLoss) -> Objective:
    from .clip import ClipObjective
    from .matryoshka import MatryoshkaObjective
    from .siglip import SigLipObjective

    if isinstance(options, SigLipLoss):
        objective: Objective = SigLipObjective(options.groups, options.chunk, options.exchange)
    else:
        objective = ClipObjective(options.groups, options.chunk)
    if options.matryoshka:
        return MatryoshkaObjective(objective, options.matryoshka, options.matryoshka_weights)
    return objective
