"""Which GPUs this machine has, and who uses them: for the engine that has no cluster to ask.

A worker is bound to its GPUs by CUDA_VISIBLE_DEVICES before it loads any library, so a share is held as long as the
worker lives. Counting costs an `nvidia-smi` and is done only when a call wants a GPU.
"""

from __future__ import annotations

import glob
import math
import os
import re
import shutil
import subprocess
import sys

from ..errors import CurateError

ASK_TORCH = "import torch; print(torch.cuda.device_count())"
TIMEOUT_S = 120.0


def may_have_gpus() -> bool:
    """Whether counting is worth its while; without a driver's device files there is nothing to count."""
    return bool(shutil.which("nvidia-smi") or glob.glob("/dev/nvidia[0-9]*"))


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES of the GPUs that this process may use.

    UUIDs, because the order of numbers depends on CUDA_DEVICE_ORDER; slices of a partitioned GPU count as GPUs. Without
    `nvidia-smi`, torch is asked, in a process of its own.

    Raises:
        CurateError: they cannot be counted.
    """
    try:
        found = _installed()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise CurateError(f"the GPUs of this machine cannot be counted: {error}") from error
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not found or chosen is None:
        return found
    names = [name.strip() for name in chosen.split(",")]
    invalid = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
    return names[:invalid]  # CUDA ignores everything from the first invalid entry on


def _installed() -> list[str]:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except FileNotFoundError:
        asked = subprocess.run([sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, timeout=TIMEOUT_S)
        return [str(i) for i in range(int(asked.stdout or 0))]
    return _parse(listed.stdout) if listed.returncode == 0 else []


def _parse(listing: str) -> list[str]:
    """UUIDs in the output of ``nvidia-smi -L``; a partitioned GPU is replaced by its slices."""
    found: list[str] = []
    whole = ""
    for uuid in re.findall(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)", listing):
        if uuid.startswith("GPU-"):
            whole = uuid
        elif whole in found:
            found.remove(whole)
        found.append(uuid)
    return found


class GpuShares:
    """Who has how much of which GPU. A share below 1 is a part of one GPU, from 1 on it is whole ones."""

    def __init__(self, names: list[str]) -> None:
        self.free = dict.fromkeys(names, 1.0)

    def fits(self, gpus: float) -> int:
        """How many workers that want `gpus` each this machine has room for."""
        return len(self.free) // math.ceil(gpus) if gpus > 1 else int(1 / gpus + 1e-9) * len(self.free)

    def take(self, gpus: float) -> tuple[str, ...]:
        """Names of the GPUs of a new share; empty when nothing is free now."""
        count, each = (math.ceil(gpus), 1.0) if gpus > 1 else (1, gpus)
        # the fullest that still has room, so that whole GPUs stay whole
        fitting = sorted((f, n) for n, f in self.free.items() if f >= each - 1e-9)[:count]
        if len(fitting) < count:
            return ()
        for _, name in fitting:
            self.free[name] -= each
        return tuple(name for _, name in fitting)

    def give_back(self, names: tuple[str, ...], gpus: float) -> None:
        """The end of a share."""
        for name in names:
            self.free[name] = min(1.0, self.free[name] + (1.0 if gpus > 1 else gpus))
