"""What a report shows of trainings: learning curves, and what each took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Line:
    """Values of one measure; `samples` is how many samples were seen at each."""

    samples: Sequence[int]
    values: Sequence[float]


@dataclass
class Curve:
    """Training loss of one arm and seed; `samples` is how many samples were seen at each point.

    Attributes:
        others: further measures by name: ``validation_loss``, ``lr``, ``logit_scale``, ``grad_norm``, or parts of the
            loss.
    """

    arm: str
    seed: int
    samples: Sequence[int]
    loss: Sequence[float]
    others: Mapping[str, Line] = field(default_factory=dict)


@dataclass
class Training:
    """What one training did, and what it took. None = not known.

    Attributes:
        samples_seen: exactly, repeats counted; ``samples`` per epoch, ``distinct`` without repeats.
        flops: floating-point operations of the whole training.
        seconds: of training, steps that had to be done again after a kill included.
        data_wait: share of them in which the loop waited for its loader.
        mfu: share of what the hardware could compute at most.
        sessions: how often it was started.
        peak_bytes: largest resident memory; ``peak_gpu_bytes`` of one GPU.
        corrupt: images that could not be decoded; `replaced`: how often another took their place.
        skipped: steps without a finite gradient, left out.
        cost: in the report's currency.
        model: architecture; ``recipe``: how it was trained, by its name.
        loss: mean over the last steps of the log.
        validation: the last evaluation on the validation set, by the names of the training's log.
    """

    arm: str
    seed: int
    steps: int
    samples_seen: int
    epochs: float | None = None
    samples: int | None = None
    distinct: int | None = None
    parameters: int | None = None
    corrupt: int = 0
    replaced: int = 0
    skipped: int = 0
    flops: float | None = None
    seconds: float | None = None
    samples_per_second: float | None = None
    data_wait: float | None = None
    mfu: float | None = None
    sessions: int | None = None
    peak_bytes: int | None = None
    peak_gpu_bytes: int | None = None
    device: str = ""
    devices: int | None = None
    cost: float | None = None
    model: str = ""
    recipe: str = ""
    loss: float | None = None
    validation: Mapping[str, float] = field(default_factory=dict)
