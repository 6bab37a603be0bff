"""Options of a training that learns which samples help: what is weighted, what judges. Importing this is cheap."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ...registry import Options
from ...shards import storage
from ..models.architecture import CONFIG_FILE
from ..models.encoder_folder import find_encoder
from ..recipe import Fraction


class FlytTraining(Options):
    """Learn sample weights from downstream gradients. Defaults: FLYT's, which need a GPU."""

    downstream: str = Field(description="Labelled evaluation set that judges: a built-in name or a folder.")
    split: str = Field("train", description="Split of it; never the one that is reported.")
    model: str | None = Field(None, description="Reference model: name, model JSON or encoder folder (architecture).")
    pretrained: str | None = Field(None, description="Local weights of `model`; none = random, from the seed.")
    encoder: str | None = Field(None, description="Start from this encoder of the config instead of from a `model`.")
    steps: int = Field(5000, ge=1, description="Steps of the training.")
    batch_size: int = Field(4096, ge=2, description="Pairs per step; the weights are a softmax over all of them.")
    downstream_batch: int = Field(3072, ge=2, description="Labelled images per step.")
    micro_batch: int = Field(256, ge=2, description="Samples whose activations are kept at a time.")
    lr: float = Field(1e-3, gt=0, description="Learning rate of the weights or of the scoring head (peak).")
    lr_reference: float = Field(5e-5, gt=0, description="Learning rate of the reference model (peak).")
    warmup: int = Field(100, ge=0, description="Steps of linear warm-up of both rates; then a cosine to 0.")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the mean of gradients.")
    beta2: float = Field(0.98, ge=0, lt=1, description="AdamW: decay of the mean of squared gradients.")
    eps: float = Field(1e-6, gt=0, description="AdamW: added to the root of the squares.")
    weight_decay: float = Field(0.2, ge=0, description="AdamW: decay of the reference model's matrices.")
    update_reference: bool = Field(True, description="The reference model keeps each step; else it only looks ahead.")
    downstream_scale: Literal["learned", "model"] = Field(
        "learned", description="Scale of the downstream logits: one of its own, or the model's logit scale."
    )
    seeds: int = Field(3, ge=1, description="Trainings that differ by seed; their spread is the uncertainty.")
    crop_scale: tuple[Fraction, Fraction] = Field((0.9, 1.0), description="Area of the random crops: least and most.")
    log_every: int = Field(10, ge=1, description="Steps between two points of the learning curve.")
    checkpoint_every_s: float = Field(300.0, ge=0, description="Seconds between two saves; 0 = after every step.")
    cache_mb: int = Field(256, ge=0, description="Memory for decoded images, MiB, per side.")

    @model_validator(mode="after")
    def _one_reference(self) -> Self:
        if (self.model is None) == (self.encoder is None):
            raise ValueError("give `model` (an architecture) or `encoder` (one of the config), and not both")
        if self.pretrained is not None and self.model is None:
            raise ValueError("`pretrained` belongs to `model`")
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale: least {self.crop_scale[0]} is more than most {self.crop_scale[1]}")
        return self

    def reference_encoders(self) -> list[str]:
        """Encoders of the config that it starts from."""
        return [] if self.encoder is None else [self.encoder]

    def reference_files(self) -> list[str]:
        """Local files that the result depends on."""
        found = []
        if self.model is not None:
            folder_config = storage.join(self.model, CONFIG_FILE)
            found += [path for path in (self.model, folder_config) if path.endswith(".json") and storage.exists(path)]
        if self.model is not None and self.pretrained is not None:
            found.append(find_encoder(self.model, self.pretrained).weights)
        return found
