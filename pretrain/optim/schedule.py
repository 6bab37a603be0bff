"""Learning rate by step: linear warm-up as in open_clip, then the curve of a `schedule_options.Schedule`.

The rate depends on the step and on the run's length only, so a resumed run has the same curve.
"""

from __future__ import annotations

import math

from .schedule_options import Schedule, length_in_steps


def warmup_steps(warmup: float, steps: int) -> int:
    """Steps of warm-up of a run of `steps`: a number of steps from 1 on, a share of the run below 1, 0 = none."""
    return length_in_steps(warmup, steps)


def rate(schedule: Schedule, step: int, steps: int, peak: float, warmup: int) -> float:
    """Rate of step `step` (from 0) of `steps`: ``peak (step + 1) / warmup`` while warming up, then the schedule's.

    A warm-up longer than the run never reaches the peak (DataComp's debug scale is such a run).
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return schedule.after_warmup(step, steps, peak, warmup)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Warm-up and a cosine to zero (Loshchilov & Hutter, ICLR 2017), without options.

    ``peak (step + 1) / warmup`` while warming up, then ``peak (1 + cos(pi (step - warmup) / (steps - warmup))) / 2``.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
