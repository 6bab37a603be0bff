"""How fast a training is: samples per second, time per step, waiting for data, use of the hardware, memory, time left.

None of it belongs to what a training results in. It is shown live (`log_sinks.py`) and ends in the run's record as a
fact about that run. Totals are kept over kills, steps that had to be done again included: they cost time too.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ...shards import storage
from .log_sinks import LIVE_FOLDER

TOTALS_FILE = "speed.json"


@dataclass
class Totals:
    """Sums over a training, or over a stretch of it.

    Attributes:
        seconds: of training; of those, ``wait_seconds`` without data.
        steps, samples, tokens: done in them, repeated ones included.
        sessions: how often the training was started.
        peak_rss_bytes: largest resident memory of process 0; ``peak_gpu_bytes``: largest memory on its GPU.
    """

    seconds: float = 0.0
    wait_seconds: float = 0.0
    steps: int = 0
    samples: int = 0
    tokens: int = 0
    sessions: int = 1
    peak_rss_bytes: int = 0
    peak_gpu_bytes: int = 0


class SpeedMeter:
    """Fed by the loop once per step; starts with `start`."""

    def __init__(
        self,
        scratch: str = "",
        flops_per_sample: float | None = None,
        peak_flops: float | None = None,
        devices: int = 1,
        device: str = "cpu",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """
        Args:
            scratch: where totals are kept between sessions; "" = nowhere.
            flops_per_sample: of one sample's part of a step, see `flops.py`; None = unknown.
            peak_flops: of one device in this precision; None = unknown.
            devices: that train together.
            device: its name, for the record.
        """
        self._path = storage.join(scratch, LIVE_FOLDER, TOTALS_FILE) if scratch else ""
        self.flops_per_sample = flops_per_sample  # may be set once the first batch has shown it
        self._peak, self._devices, self._device = peak_flops, devices, device
        self._clock = clock
        self.totals = Totals()
        if self._path and storage.exists(self._path):
            self.totals = Totals(**storage.read_json(self._path))
            self.totals.sessions += 1
        self._window = Totals()
        self._last: float | None = None

    def start(self) -> None:
        """The clock runs from here; what came before (loading, compiling) does not count."""
        self._last = self._clock()

    def pause(self) -> None:
        """What comes until the next `start` (an evaluation) does not count."""
        self._last = None

    def step(self, samples: int, wait_s: float = 0.0, tokens: int = 0) -> None:
        """A step has ended.

        Args:
            samples: of the whole batch, all processes together.
            wait_s: seconds of it in which the loop waited for its loader.
            tokens: of the captions, if counted.
        """
        now = self._clock()
        passed = now - self._last if self._last is not None else 0.0
        self._last = now
        for sums in (self._window, self.totals):
            sums.seconds += passed
            sums.wait_seconds += min(wait_s, passed)
            sums.steps += 1
            sums.samples += samples
            sums.tokens += tokens

    def reading(self, samples_left: int = 0) -> dict[str, float]:
        """Of the steps since the last reading, ready for the live log; what is not known is absent."""
        window, self._window = self._window, Totals()
        self.totals.peak_rss_bytes = max(self.totals.peak_rss_bytes, peak_rss_bytes())
        self.totals.peak_gpu_bytes = max(self.totals.peak_gpu_bytes, peak_gpu_bytes())
        found = self._rates(window)
        if window.steps:
            found["step_seconds"] = window.seconds / window.steps
        if found.get("samples_per_second"):
            found["eta_seconds"] = samples_left / found["samples_per_second"]
        found["peak_rss_bytes"] = self.totals.peak_rss_bytes
        if self.totals.peak_gpu_bytes:
            found["peak_gpu_bytes"] = self.totals.peak_gpu_bytes
        if self._path:
            storage.write_json(self._path, asdict(self.totals))
        return found

    def _rates(self, sums: Totals) -> dict[str, float]:
        if sums.seconds <= 0:
            return {}
        found = {"samples_per_second": sums.samples / sums.seconds, "data_wait": sums.wait_seconds / sums.seconds}
        if sums.tokens:
            found["tokens_per_second"] = sums.tokens / sums.seconds
        if self.flops_per_sample:
            found["flops_per_second"] = found["samples_per_second"] * self.flops_per_sample
            if self._peak:
                found["mfu"] = found["flops_per_second"] / (self._peak * self._devices)
        return found

    def facts(self, samples_seen: int) -> dict[str, Any]:
        """Of the whole training, as JSON for the run's record.

        Args:
            samples_seen: its budget, for ``flops``: what the result took, repeated steps left out.
        """
        self.reading()
        found: dict[str, Any] = {**asdict(self.totals), **self._rates(self.totals)}
        if self.flops_per_sample:
            found["flops"] = self.flops_per_sample * samples_seen
        return {**found, "device": self._device, "devices": self._devices}


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_gpu_bytes() -> int:
    """Largest memory that torch held on this process's GPU so far; 0 without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.max_memory_allocated())
