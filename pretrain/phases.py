"""Phases of a training: small and cheap inputs first, full ones at the end.

Most of a contrastive training can be done on small images, on a part of their patches and on short captions, if the
last part of it is not: FLIP (Li et al., CVPR 2023) drops patches, CLIPA (Li et al., NeurIPS 2023) shrinks images and
captions, EfficientTrain (Wang et al., ICCV 2023) begins with low frequencies, which small images are. Phases divide the
budget by samples, and the division is exact: a phase ends where a step ends, the last one takes what is left, and the
batch of the very last step is smaller if need be. Price: the loss jumps where a phase begins.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..errors import ConfigError
from ..registry import Options
from .data.view import View
from .optim.schedule import rate, warmup_steps
from .optim.schedule_options import Schedule

Fraction = Annotated[float, Field(gt=0, le=1)]
TextCut = Literal["truncate", "random", "block"]


class Phase(Options):
    """A part of the budget and how its samples are looked at. What is left out is the recipe's, or the model's own."""

    share: Fraction = Field(description="Part of samples_seen; the shares of all phases add up to 1.")
    image_size: int | None = Field(None, ge=1, description="Height and width of images, pixels.")
    patch_keep: Fraction = Field(1.0, description="Part of an image's patches that a vision transformer sees.")
    text_length: int | None = Field(None, ge=3, description="Tokens per caption, marks included.")
    text_cut: TextCut = Field(
        "truncate", description="What is left of a longer caption: its beginning, random tokens in order, or a block."
    )
    crop_scale: tuple[Fraction, Fraction] | None = Field(None, description="Least and most area of the random crop.")
    batch_size: int | None = Field(None, ge=1, description="Samples per step.")
    lr: float = Field(1.0, gt=0, description="Factor on the recipe's rate.")
    restart: bool = Field(False, description="Begin the schedule anew, warm-up included, as if here a run began.")

    @model_validator(mode="after")
    def _ordered(self) -> Phase:
        if self.crop_scale and self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale: least {self.crop_scale[0]} is more than most {self.crop_scale[1]}")
        return self


@dataclass(frozen=True)
class Span:
    """The steps of one phase.

    Attributes:
        start, stop: first step and the one after the last.
        first, last: samples seen before and after them.
        batch_size: of its steps; the run's last step may be smaller.
        view: how its samples are looked at. Captions of another cut than ``truncate`` leave the loader whole.
        text_length, text_cut: what `token_reduction.shorten` makes of captions; None = nothing.
    """

    start: int
    stop: int
    first: int
    last: int
    batch_size: int
    view: View
    patch_keep: float = 1.0
    text_length: int | None = None
    text_cut: TextCut = "truncate"
    lr: float = 1.0
    restart: bool = False


@dataclass(frozen=True)
class PhasePlan:
    """Which step belongs to which phase and sees which samples; a pure function of the options.

    Attributes:
        spans: of the phases, in order; together all steps and all samples.
    """

    spans: tuple[Span, ...]

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.spans[-1].stop

    @property
    def samples_seen(self) -> int:
        """Of the whole run: exactly what was asked for."""
        return self.spans[-1].last

    def span(self, step: int) -> Span:
        """The phase that holds a step."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is not one of the run's {self.steps}")
        return self.spans[bisect_right([span.start for span in self.spans], step) - 1]

    def view(self, step: int) -> View:
        """How the samples of a step are looked at."""
        return self.span(step).view

    def samples_before(self, step: int) -> int:
        """Samples seen before a step (or by the whole run, for the step behind the last); where its batch begins."""
        if step >= self.steps:
            return self.samples_seen
        span = self.span(step)
        return span.first + (step - span.start) * span.batch_size

    def batch_size(self, step: int) -> int:
        """Samples of a step."""
        return self.samples_before(step + 1) - self.samples_before(step)

    def clock(self, step: int) -> tuple[int, int]:
        """The schedule's step and its number of steps: counted from the last phase that restarts it to the next."""
        starts = [0, *(span.start for span in self.spans[1:] if span.restart), self.steps]
        at = bisect_right(starts, step) - 1
        return step - starts[at], starts[at + 1] - starts[at]

    def rate(self, step: int, schedule: Schedule, peak: float, warmup: float) -> float:
        """Learning rate of a step.

        Args:
            warmup: steps, or below 1 a share of the run (of the part between two restarts).
        """
        at, steps = self.clock(step)
        return self.span(step).lr * rate(schedule, at, steps, peak, warmup_steps(warmup, steps))


def plan_phases(
    phases: Sequence[Phase],
    samples_seen: int,
    batch_size: int,
    image_size: tuple[int, int],
    context_length: int | None = None,
    crop_scale: tuple[float, float] = (0.9, 1.0),
) -> PhasePlan:
    """Divide a budget.

    Args:
        phases: in order; empty = one phase that changes nothing.
        samples_seen: the whole budget; the spans' samples add up to it.
        batch_size, image_size, crop_scale: where a phase does not say its own.
        context_length: the most tokens that the model takes; None = do not check.

    Raises:
        ConfigError: the shares do not add up to 1, a phase gets no step, or its captions are longer than the model's.
    """
    phases = list(phases) or [Phase.model_validate({"share": 1.0})]
    total = math.fsum(phase.share for phase in phases)
    if abs(total - 1) > 1e-6:
        raise ConfigError(f"phases: the shares add up to {total:g}; they must add up to 1")
    spans: list[Span] = []
    start = first = 0
    for number, phase in enumerate(phases, 1):
        if context_length is not None and phase.text_length is not None and phase.text_length > context_length:
            raise ConfigError(
                f"phases: phase {number} has captions of {phase.text_length} tokens; the model takes {context_length}"
            )
        size = phase.batch_size or batch_size
        end = samples_seen if number == len(phases) else math.fsum(p.share for p in phases[:number]) * samples_seen
        steps = math.ceil((samples_seen - first) / size) if number == len(phases) else round((end - first) / size)
        last = min(first + steps * size, samples_seen)
        if steps < 1 or last == first:
            raise ConfigError(
                f"phases: phase {number} gets no step: {phase.share:g} of {samples_seen} samples in batches of {size}; "
                "raise samples_seen or lower the batch size"
            )
        square = (phase.image_size, phase.image_size) if phase.image_size else image_size
        cut = phase.text_length if phase.text_cut == "truncate" else None
        view = View(square, phase.crop_scale or crop_scale, cut)
        own = (phase.patch_keep, phase.text_length, phase.text_cut, phase.lr, phase.restart)
        spans.append(Span(start, start + steps, first, last, size, view, *own))
        start, first = start + steps, last
    return PhasePlan(tuple(spans))
