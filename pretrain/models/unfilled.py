"""Modules whose weights are left as the memory is, because a checkpoint follows: nothing is drawn that is overwritten.

A third of the time to load a ViT-B goes into random numbers that nobody sees. In-place operations on parameters are
how constructors initialise them, so under `unfilled` those do nothing; all else runs as ever, buffers (masks, tables)
among it. A mode of torch's is known to its thread alone, so a module that is built elsewhere meanwhile is not touched.
Whoever builds a module so must load *every* parameter, as `load_state_dict(strict=True)` makes sure of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

_INITIALISATION = frozenset(
    (
        *("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_"),
        *("kaiming_normal_", "constant_", "fill_", "zero_", "copy_", "mul_", "div_", "add_", "sub_"),
        *("clamp_", "erfinv_", "bernoulli_"),
    )
)


class unfilled(TorchFunctionMode):
    """In this context initialisations of parameters are left out."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by torch for each of its functions."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _INITIALISATION:
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, nn.Parameter):
                return target
        return func(*args, **kwargs)
