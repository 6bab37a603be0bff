"""How to train: the options of a training, registered by name. Importing this is cheap; `objective` imports torch.

A recipe says everything that the result depends on but the data, the model, the budget and the seed, and some things
that it does not depend on (`FREE`): how often the state is saved, how much memory decoded images may take.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ..registry import Options, Registry
from .data.augment_options import Augment
from .data.mix_options import MixOptions
from .label_options import LabelOptions
from .models.classifier_options import ClassifierOptions
from .models.locking import LockOptions
from .objectives.options import ClipLoss, PairLosses, SigLipLoss, SupConLoss, TeacherLoss
from .optim import optimizer_options, schedule_options
from .optim.ema_options import EmaOptions
from .outputs.log_sinks import LogSink
from .phases import Phase
from .state.snapshots import SnapshotOptions

if TYPE_CHECKING:
    from .objectives.base import Objective

    OptimizerOption = optimizer_options.Optimizer
    ScheduleOption = schedule_options.Schedule
else:  # one of the registered classes, told apart by `type`
    OptimizerOption, ScheduleOption = optimizer_options.OptimizerOption, schedule_options.ScheduleOption

Fraction = Annotated[float, Field(gt=0, le=1)]
FREE = frozenset({"checkpoint_every_s", "checkpoint_every_steps", "cache_mb", "threads", "log"})
"""Options that cannot change a result."""


class Teacher(TeacherLoss):
    """A trained model that is followed, and how."""

    model: str = Field(description="Encoder folder, open_clip model or `timm:NAME`.")
    pretrained: str | None = Field(None, description="Local checkpoint, when `model` is not a folder.")


class Recipe(Options):
    """What every recipe has. Defaults: DataComp's, but the batch."""

    type: str
    batch_size: int = Field(1024, ge=1, description="Samples per step; contrastive training sees them as negatives.")
    micro_batch: int = Field(
        0,
        ge=0,
        description="Samples of one forward pass of a process; 0 = all of its batch. Less memory and the same "
        "gradient, but for batch norm, whose statistics are then those of a pass.",
    )
    lr: float = Field(5e-4, gt=0, description="Learning rate at the end of the warm-up.")
    warmup: float = Field(500, ge=0, description="Linear warm-up: steps, or below 1 a share of the run.")
    schedule: ScheduleOption = Field(
        default_factory=lambda: schedule_options.Cosine.model_validate({}),
        description="Learning rate after the warm-up.",
    )
    optimizer: OptimizerOption = Field(
        default_factory=lambda: optimizer_options.AdamW.model_validate({}),
        description="What turns gradients into steps.",
    )
    weight_decay: float = Field(0.2, ge=0, description="Weight decay of matrices and embeddings.")
    grad_clip: float = Field(0.0, ge=0, description="Largest norm of the gradient; 0 = not clipped.")
    skip_bad_steps: int = Field(
        0, ge=0, description="Steps without a finite gradient that may be left out in a row; they are counted."
    )
    ema: EmaOptions | None = Field(None, description="Publish a moving average of the weights.")
    phases: tuple[Phase, ...] = Field((), description="Parts of the budget with inputs of their own; none = one phase.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Arithmetic of the network; weights stay fp32. auto = bf16 on a GPU, else fp32."
    )
    crop_scale: tuple[Fraction, Fraction] = Field(
        (0.9, 1.0), description="Area of the random crop, as fractions of the image: least and most."
    )
    augment: Augment = Field(default_factory=Augment, description="Random changes of images beside the crop.")
    labels: LabelOptions | None = Field(None, description="Learn labels as well, by a classification head.")
    distill: tuple[Teacher, ...] = Field((), description="Trained models that are followed.")
    grad_checkpointing: bool = Field(False, description="Compute activations again in the backward pass: less memory.")
    compile: bool = Field(False, description="Compile the network with torch.compile.")
    sharding: Literal["ddp", "fsdp"] = Field(
        "ddp", description="With several processes: all weights in each (ddp), or a part in each (fsdp)."
    )
    snapshots: SnapshotOptions = Field(
        default_factory=lambda: SnapshotOptions.model_validate({}),
        description="Weights on the way that are published with the model.",
    )
    log_every: int = Field(10, ge=1, description="Steps between two lines of the log.")
    log: tuple[LogSink, ...] = Field((), description="Services to log to beside TensorBoard: wandb, mlflow.")
    checkpoint_every_s: float = Field(
        300.0, ge=0, description="Seconds between two saves of the resumable state; 0 = after every step."
    )
    checkpoint_every_steps: int = Field(0, ge=0, description="Steps between two saves besides; 0 = by the clock alone.")
    cache_mb: int = Field(256, ge=0, description="Memory for decoded images, MiB; spares decoding in later epochs.")
    threads: int = Field(0, ge=0, description="Threads that prepare images; 0 = one per process on a GPU, else none.")

    reads_captions: ClassVar[bool] = True

    @model_validator(mode="after")
    def _ordered(self) -> Recipe:
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale: least {self.crop_scale[0]} is more than most {self.crop_scale[1]}")
        return self

    def described(self) -> dict[str, Any]:
        """All that a result depends on, as JSON."""
        return self.model_dump(mode="json", exclude=set(FREE))

    @property
    def mixes(self) -> MixOptions | None:
        """How pictures and labels are mixed, if they are."""
        return None

    @abstractmethod
    def objective(self, classes: Any = None) -> Objective:
        """What is minimised.

        Args:
            classes: a `label_space.LabelSpace`, where labels are learned.
        """


RECIPES: Registry[Recipe] = Registry("recipe")


class PairRecipe(Recipe):
    """Training on image-text pairs, and on labels besides if they are asked for."""

    captions: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=lambda: {"caption": 1.0},
        description="Columns that hold captions, and how often each is taken where a sample has several.",
    )
    groups: int = Field(
        1, ge=1, description="Runs of the batch within which pairs are compared; 1 = all with all (M2-Encoder: more)."
    )
    loss_chunk: int = Field(1024, ge=1, description="Images compared at a time: bounds memory, changes nothing else.")
    matryoshka: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="Lengths of prefixes of the features that shall be features too."
    )
    matryoshka_weights: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None, description="Weight of each prefix's loss; none = 1 each, as much as the whole features'."
    )
    contrastive_weight: float = Field(1.0, ge=0, description="Factor of the contrastive loss; 0 = teachers alone.")
    supcon: SupConLoss | None = Field(None, description="Images of one class attract each other; needs `labels`.")
    lock: LockOptions | None = Field(None, description="Towers that are not trained (LiT).")

    @model_validator(mode="after")
    def _something_to_learn(self) -> PairRecipe:
        if self.supcon is not None and self.labels is None:
            raise ValueError("supcon needs `labels`: which column says the classes?")
        learned = self.labels is not None and (self.labels.loss is not None or self.supcon is not None)
        if not self.contrastive_weight and not self.distill and not learned:
            raise ValueError("contrastive_weight is 0, and there are no teachers and no labels: nothing to learn")
        return self

    @abstractmethod
    def pair_loss(self) -> ClipLoss | SigLipLoss:
        """The contrastive loss."""

    def _shared(self) -> dict[str, Any]:
        options = {"groups": self.groups, "chunk": self.loss_chunk, "matryoshka": self.matryoshka}
        return options | {"matryoshka_weights": self.matryoshka_weights}

    def objective(self, classes: Any = None) -> Objective:
        from .objectives.options import contrastive_objective
        from .objectives.weighted_sum import Sum

        followed = tuple(
            TeacherLoss.model_validate({name: getattr(teacher, name) for name in TeacherLoss.model_fields})
            for teacher in self.distill
        )
        losses = PairLosses(
            contrastive=self.pair_loss() if self.contrastive_weight else None,
            weight=self.contrastive_weight or 1.0,
            teachers=followed,
            supcon=self.supcon,
        )
        pairs = contrastive_objective(losses)
        if self.labels is None or self.labels.loss is None:
            return pairs
        return Sum([(1.0, pairs), (1.0, self.labels.objective(classes))])


@RECIPES.register
class ClipRecipe(PairRecipe):
    """Contrastive language-image pretraining (Radford et al., ICML 2021): all other pairs of a batch are negatives."""

    type: Literal["clip"] = "clip"

    def pair_loss(self) -> ClipLoss:
        return ClipLoss(**self._shared())


@RECIPES.register
class SigLipRecipe(PairRecipe):
    """Sigmoid loss (Zhai et al., ICCV 2023): every pair of a batch is a yes or a no by itself. The scale starts at 10,
    a bias at -10."""

    type: Literal["siglip"] = "siglip"
    exchange: Literal["gather", "ring", "both"] = Field(
        "gather", description="How captions travel between processes: all at once, or block by block around the ring."
    )

    def pair_loss(self) -> SigLipLoss:
        return SigLipLoss(**self._shared(), exchange=self.exchange)


@RECIPES.register
class SupervisedRecipe(Recipe):
    """Learn labels by an image tower and a head: softmax, hashtags, semantic softmax. The model is `timm:NAME`, or the
    image tower of a model of pictures and text."""

    type: Literal["supervised"] = "supervised"
    labels: LabelOptions = Field(description="Which labels, and by which loss.")
    weight_decay: float = Field(0.05, ge=0, description="Weight decay of matrices and embeddings.")
    crop_scale: tuple[Fraction, Fraction] = Field(
        (0.08, 1.0), description="Area of the random crop, as fractions of the image: least and most."
    )
    mix: MixOptions = Field(default_factory=MixOptions, description="Mixup and cutmix.")
    supcon: SupConLoss | None = Field(None, description="Images of one class attract each other besides.")
    classifier: ClassifierOptions = Field(default_factory=ClassifierOptions, description="How the head is built.")

    reads_captions: ClassVar[bool] = False

    @model_validator(mode="after")
    def _something_to_learn(self) -> SupervisedRecipe:
        if self.labels.loss is None and not self.distill and self.supcon is None:
            raise ValueError("labels.loss is none, and there are no teachers and no supcon: nothing to learn")
        for i, teacher in enumerate(self.distill):
            if teacher.kind != "classes":
                raise ValueError(f"distill.{i}: a classifier follows a teacher's `classes`, not its `{teacher.kind}`")
        return self

    @property
    def mixes(self) -> MixOptions | None:
        return self.mix if self.mix.on else None

    def objective(self, classes: Any = None) -> Objective:
        from .objectives.distill import DistillObjective
        from .objectives.supcon import SupConObjective
        from .objectives.weighted_sum import Sum

        parts: list[tuple[float, Objective]] = []
        if self.labels.loss is not None:
            parts.append((1.0, self.labels.objective(classes)))
        for i, teacher in enumerate(self.distill):
            parts.append((teacher.weight, DistillObjective(i, teacher.kind, teacher.distance, teacher.temperature)))
        if self.supcon is not None:
            parts.append((self.supcon.weight, SupConObjective(self.supcon.temperature, self.supcon.chunk)))
        return parts[0][1] if len(parts) == 1 and parts[0][0] == 1 else Sum(parts)
