"""Where a model runs, and in which arithmetic.

On a CPU it is float32: without bfloat16 units the narrow types are eleven times slower there and gain nothing. On a GPU
``auto`` is bfloat16, at about three digits of accuracy. float32 means float32 everywhere: GPUs would otherwise round
the factors of convolutions to ten bits (TF32).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch

from ..errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]
_NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(device: str) -> torch.device:
    """``auto`` is the first GPU if there is one, else the CPU.

    Raises:
        ConfigError: no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {device!r}; known: auto, cpu, cuda") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {device!r}, but torch sees no GPU here; use cpu or auto")
    return found


def pick_precision(precision: str, device: torch.device) -> Precision:
    """``auto`` is float32 on a CPU and bfloat16 on a GPU.

    Raises:
        ConfigError: no such precision, or one that this device should not be asked for.
    """
    if precision == "auto":
        return "fp32" if device.type == "cpu" else "bf16"
    if precision == "fp32":
        return "fp32"
    if precision not in _NARROW:
        raise ConfigError(f"there is no precision {precision!r}; known: auto, fp32, bf16, fp16")
    if device.type == "cpu":
        raise ConfigError(
            f"precision is {precision!r}, but the model runs on the CPU, where that is about eleven times slower than "
            "fp32; use auto or fp32, or a GPU"
        )
    return precision  # type: ignore[return-value]


def arithmetic(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Context in which towers run: plain float32, or a narrow type where it is safe (autocast)."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, _NARROW[precision])


@contextmanager
def inference(device: torch.device, precision: Precision) -> Iterator[None]:
    """Context of a forward pass whose rows must be reproducible: no gradients, no TF32, no choice of algorithms by
    timing."""
    with torch.inference_mode(), arithmetic(device, precision):
        if device.type == "cpu":
            yield
            return
        matmul = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = matmul


@contextmanager
def one_thread() -> Iterator[None]:
    """Context in which torch computes with the caller's thread alone.

    With more, matrix products are cut up by the number of threads, and a row's last bits depend on its place in the
    batch (seen with two threads in attention over short captions).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def contained(threads: int, device: torch.device) -> Iterator[None]:
    """Context of a training: `threads` CPU threads; torch's thread count and random state are left as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(before)
