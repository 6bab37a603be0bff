"""DataComp's training scales as a recipe: the same hyper-parameters, and exactly the samples that they promise.

Source: Gadre et al., "DataComp: in search of the next generation of multimodal datasets", NeurIPS 2023, appendix;
numbers as in its training code. There the budget is nominal: batches are rounded up per epoch and per loader worker, so
that a run of the small scale sees 0.1 to 2.4 % more than its 12.8M samples, depending on checkpoints and workers
(`original_run`). Here the last batch is smaller instead. Deliberately different: the precision that suits the device,
bfloat16 on a GPU, where the original uses float16 below xlarge, having found that float16 loses there; and the shards
are not drawn with replacement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from .recipe import RECIPES, ClipRecipe

ScaleName = Literal["debug", "small", "medium", "large", "xlarge"]


@dataclass(frozen=True)
class Scale:
    """One of DataComp's scales.

    Attributes:
        samples_seen: budget.
        warmup: steps; debug's is longer than its run.
    """

    model: str
    samples_seen: int
    batch_size: int
    lr: float
    warmup: int
    beta2: float

    @property
    def steps(self) -> int:
        """Of our run; the last batch may be smaller."""
        return -(-self.samples_seen // self.batch_size)


SCALES: dict[str, Scale] = {
    "debug": Scale("ViT-B-32", 128_000, 1_024, 1e-4, 500, 0.98),
    "small": Scale("ViT-B-32", 12_800_000, 4_096, 5e-4, 500, 0.98),
    "medium": Scale("ViT-B-32", 128_000_000, 4_096, 5e-4, 500, 0.98),
    "large": Scale("ViT-B-16", 1_280_000_000, 8_192, 5e-4, 500, 0.98),
    "xlarge": Scale("ViT-L-14", 12_800_000_000, 90_112, 1e-3, 10_000, 0.95),
}
assert tuple(SCALES) == get_args(ScaleName)


@RECIPES.register
class DataCompRecipe(ClipRecipe):
    """CLIP at one of DataComp's scales: ``recipe: {type: datacomp, scale: small}``. Model and budget come with it;
    whatever is named beside the scale takes the place of the scale's own."""

    type: Literal["datacomp"] = "datacomp"  # type: ignore[assignment]
    scale: ScaleName = Field("small", description="debug, small, medium, large or xlarge.")
    model: str = Field("ViT-B-32", description="Architecture; left out: the scale's.")
    samples_seen: int = Field(12_800_000, ge=1, description="Budget; left out: the scale's.")

    @model_validator(mode="before")
    @classmethod
    def _of_scale(cls, given: Any) -> Any:
        name = given.get("scale", "small") if isinstance(given, dict) else None
        if not isinstance(name, str) or name not in SCALES:
            return given  # the field's own check explains it
        return scale_defaults(name) | given


def scale_defaults(name: str) -> dict[str, Any]:
    """Options of a scale's recipe, by the names of their fields."""
    scale = SCALES[name]
    return {
        "model": scale.model,
        "samples_seen": scale.samples_seen,
        "batch_size": scale.batch_size,
        "lr": scale.lr,
        "warmup": scale.warmup,
        "schedule": {"type": "cosine"},
        "optimizer": {"type": "adamw", "beta1": 0.9, "beta2": scale.beta2, "eps": 1e-6},
        "weight_decay": 0.2,
        "grad_clip": 0.0,
        "crop_scale": (0.9, 1.0),
        "grad_checkpointing": True,
        "precision": "auto",
    }


@dataclass(frozen=True)
class OriginalRun:
    """What DataComp's own training code would have done.

    Attributes:
        batch_size: over all GPUs; smaller than asked for where it does not divide.
    """

    steps: int
    samples_seen: int
    batch_size: int


def original_run(name: str, checkpoints: int = 5, gpus: int = 1, workers: int = 4, accumulate: int = 1) -> OriginalRun:
    """Steps and samples of DataComp's own code at a scale (open_clip 2.16 with resampled shards).

    Args:
        checkpoints: its ``num_checkpoints``, which are its epochs.
        workers: loader processes per GPU; accumulate: batches per step.
    """
    scale = SCALES[name]
    per_gpu = scale.batch_size // (gpus * accumulate)
    batch = per_gpu * gpus
    batches = -(-(scale.samples_seen // checkpoints) // batch)
    batches = -(-batches // max(1, workers)) * max(1, workers)
    steps = batches // accumulate
    return OriginalRun(steps * checkpoints, steps * checkpoints * batch * accumulate, batch * accumulate)


def budget_sentence(name: str, checkpoints: int = 5, gpus: int = 1, workers: int = 4) -> str:
    """Our budget beside the original's, for the log and the plan."""
    scale, theirs = SCALES[name], original_run(name, checkpoints, gpus, workers)
    more = 100 * (theirs.samples_seen / scale.samples_seen - 1)
    return (
        f"DataComp {name}: exactly {scale.samples_seen:,} samples in {scale.steps:,} steps of {scale.batch_size:,}; "
        f"its own code would see {theirs.samples_seen:,} ({more:+.1f} %) in {theirs.steps:,} steps "
        f"({checkpoints} checkpoints, {gpus} GPUs, {workers} workers each)"
    )
