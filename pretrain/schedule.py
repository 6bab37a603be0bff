"""Learning rate by step: linear warm-up, then a cosine to zero (Loshchilov & Hutter, ICLR 2017), as open_clip does it.

The rate depends on the step and on the run's length only, so a resumed run has the same curve.
"""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Rate of step `step` (from 0) of `steps`.

    ``peak (step + 1) / warmup`` while warming up, then ``peak (1 + cos(pi (step - warmup) / (steps - warmup))) / 2``. A
    warm-up longer than the run never reaches the peak (DataComp's debug scale is such a run).
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
