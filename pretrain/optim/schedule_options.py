"""Learning rate by step, as options: each class is a curve, and a curve is a pure function of the step.

`Schedule.after_warmup` says the rate once the linear warm-up is over; `schedule.py` adds that, as open_clip does.
Lengths are given as whole steps, or as a share of the run. With whole steps a curve that is *open-ended* (constant,
infinite without annealing, warm restarts by length) does not depend on the run's length: such a run can be prolonged
later as if it had been longer from the start. The price of that is that nothing anneals unless it is asked for.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ...registry import Options, Registry
from ..named_option import named_option

Share = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[int, Field(ge=1)] | Annotated[float, Field(ge=0, lt=1)]
"""Whole steps from 1 on, or a share of the run below 1."""


def length_in_steps(length: float, steps: int) -> int:
    """A `Length` in steps of a run of `steps`; shares are rounded to the nearest step."""
    return int(length) if length >= 1 else round(length * steps)


def half_cosine(done: float, start: float, end: float) -> float:
    """From `start` at ``done = 0`` to `end` at 1 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * done)) * (start - end) + end


class Schedule(Options):
    """A curve from the peak on."""

    type: str

    @abstractmethod
    def after_warmup(self, step: int, steps: int, peak: float, warmup: int) -> float:
        """Rate of step `step` (from 0) of `steps`, where ``step >= warmup``.

        Args:
            peak: the rate at the end of the warm-up.
            warmup: steps of warm-up.
        """


SCHEDULES: Registry[Schedule] = Registry("schedule")


@SCHEDULES.register
class Cosine(Schedule):
    """Half a cosine from the peak to the floor at the end of the run (Loshchilov & Hutter, ICLR 2017)."""

    type: Literal["cosine"] = "cosine"
    floor: Share = Field(0.0, description="Rate at the end, as a share of the peak.")

    def after_warmup(self, step: int, steps: int, peak: float, warmup: int) -> float:
        done, whole = step - warmup, steps - warmup
        return 0.5 * (1 + math.cos(math.pi * done / whole)) * (peak - self.floor * peak) + self.floor * peak


@SCHEDULES.register
class Linear(Schedule):
    """A straight line from the peak to the floor at the end of the run."""

    type: Literal["linear"] = "linear"
    floor: Share = Field(0.0, description="Rate at the end, as a share of the peak.")

    def after_warmup(self, step: int, steps: int, peak: float, warmup: int) -> float:
        left = 1 - (step - warmup) / (steps - warmup)
        return left * (peak - self.floor * peak) + self.floor * peak


@SCHEDULES.register
class Constant(Schedule):
    """The peak, to the end; open-ended."""

    type: Literal["constant"] = "constant"

    def after_warmup(self, step: int, steps: int, peak: float, warmup: int) -> float:
        return peak


@SCHEDULES.register
class Cooldown(Schedule):
    """Constant, then down to the floor over the last part of the run (Zhai et al., CVPR 2022; shapes compared by Hägele
    et al., NeurIPS 2024, who find ``1-sqrt`` best). open_clip's ``const-cooldown``."""

    type: Literal["cooldown"] = "cooldown"
    length: Length = Field(0.2, description="Length of the cooldown: steps, or a share of the run below 1.")
    shape: Literal["linear", "sqrt", "square", "1-sqrt", "cosine"] = Field(
        "1-sqrt",
        description="With x from 0 to 1 over the cooldown, the rate falls as 1-x, sqrt(1-x), (1-x)^2, 1-sqrt(x) or "
        "half a cosine. The first three are open_clip's powers 1, 0.5 and 2.",
    )
    floor: Share = Field(0.0, description="Rate at the end, as a share of the peak.")

    def after_warmup(self, step: int, steps: int, peak: float, warmup: int) -> float:
        start = steps - length_in_steps(self.length, steps)
        if step < start:
            return peak
        x = (step - start) / (steps - start)
        end = self.floor * peak
        if self.shape == "cosine":
            return half_cosine(x, peak, end)
        if self.shape == "1-sqrt":
            left = 1 - math.sqrt(x)
        else:
            left = (1 - x) ** {"linear": 1.0, "sqrt": 0.5, "square": 2.0}[self.shape]
        return left * (peak - end) + end


@SCHEDULES.register
class Infinite(Schedule):
    """A cosine down to a constant, the constant for as long as there is data, then exponential annealing (Ibrahim et
    al., "Simple and scalable strategies to continually pre-train LLMs", TMLR 2024).

    With ``settle`` in steps and ``anneal: 0`` no rate depends on the run's length: train, keep the checkpoint, go on
    from it when new data comes (``warmup: 0``, ``settle: 0``), and anneal only in the run that is released.
    """

    type: Literal["infinite"] = "infinite"
    settle: Length = Field(
        0.25, description="Length of the cosine to the constant: steps, or a share of the run below 1."
    )
    constant: float = Field(0.5, gt=0, le=1, description="The constant rate, as a share of the peak.")
    anneal: Length = Field(0.15, description="Length of the annealing at the end: steps, or a share; 0 = none.")
    floor: float = Field(0.01, gt=0, le=1, description="Rate at the end of the annealing, as a share of the peak.")

    @model_validator(mode="after")
    def _falls(self) -> Infinite:
        if self.floor > self.constant:
            raise ValueError(f"floor {self.floor} is above the constant {self.constant}")
        return self

    def after_warmup(self, step: int, steps: int, peak: float, warmup: int) -> float:
        settle, anneal = length_in_steps(self.settle, steps), length_in_steps(self.anneal, steps)
        constant = self.constant * peak
        start = steps - anneal
        if step >= start:
            return constant * (self.floor / self.constant) ** ((step - start) / anneal)
        if step < warmup + settle:
            return half_cosine((step - warmup) / settle, peak, constant)
        return constant


@SCHEDULES.register
class WarmRestarts(Schedule):
    """A cosine that starts anew several times: SGDR (Loshchilov & Hutter, ICLR 2017). Warm-up precedes the first."""

    type: Literal["warm_restarts"] = "warm_restarts"
    cycles: int = Field(4, ge=1, description="How many cycles the run has, where `lengths` is not given.")
    growth: float = Field(1.0, gt=0, description="Length of a cycle / length of the one before (SGDR's T_mult).")
    lengths: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="Steps of the cycles instead; the last length repeats to the end of the run."
    )
    decay: float = Field(1.0, gt=0, le=1, description="Peak of a cycle / peak of the one before.")
    floor: Share = Field(0.0, description="Rate at the end of a cycle, as a share of the cycle's peak.")

    @model_validator(mode="after")
    def _some(self) -> WarmRestarts:
        if self.lengths == ():
            raise ValueError("lengths: name at least one cycle's steps, or leave it out")
        return self

    def after_warmup(self, step: int, steps: int, peak: float, warmup: int) -> float:
        number, start, stop = self._cycle(step - warmup, steps - warmup)
        top = peak * self.decay**number
        return half_cosine((step - warmup - start) / (stop - start), top, self.floor * top)

    def _cycle(self, at: int, whole: int) -> tuple[int, int, int]:
        """Number, first step and end of the cycle that holds step `at` of `whole`."""
        if self.lengths is not None:
            start = 0
            for number, length in enumerate(self.lengths):
                if at < start + length:
                    return number, start, start + length
                start += length
            last = self.lengths[-1]
            more = (at - start) // last
            return len(self.lengths) + more, start + more * last, start + (more + 1) * last
        weights = [self.growth**i for i in range(self.cycles)]
        start, number, total = 0, 0, math.fsum(weights)
        for cycle in range(self.cycles):
            stop = round(whole * math.fsum(weights[: cycle + 1]) / total)
            if at < stop:
                return number, start, stop
            number += stop > start  # a cycle too short to have a step does not count
            start = stop
        raise ValueError(f"step {at} is not within the run's {whole} steps")


ScheduleOption: Any = named_option(SCHEDULES)
"""A schedule in an option class: its name, or an object with its `type`."""
