"""From options to an optimizer: parameter groups, torch's or timm's class, one rate for all.

Every group carries a ``lr_scale``, its factor on the schedule's rate; `set_rate` is called before every step. Whatever
an optimizer remembers is in its state dictionary and is read back to the same bits (a test does so with timm's, too).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...errors import ConfigError
from ...registry import unknown
from . import optimizer_options as options_of
from .parameter_groups import decays, parameter_groups

__all__ = ["build_optimizer", "decays", "set_rate"]


def build_optimizer(
    network: nn.Module, options: options_of.Optimizer, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimizer over the network's trainable parameters, on the device where these lie.

    Args:
        lr: peak rate; `set_rate` replaces it before every step.
        weight_decay: of matrices and embeddings.

    Raises:
        ConfigError: nothing is trainable, a library is missing, or timm has no such optimizer.
    """
    groups = parameter_groups(network, options, weight_decay)
    if not groups:
        raise ConfigError("nothing is left to train: all parameters of the model are locked")
    optimizer = _made(options, groups, lr, weight_decay)
    set_rate(optimizer, lr)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its share of the schedule's rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def _made(
    options: options_of.Optimizer, groups: list[dict[str, Any]], lr: float, decay: float
) -> torch.optim.Optimizer:
    match options:
        case options_of.AdamW(beta1=beta1, beta2=beta2, eps=eps):
            return torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=eps, fused=True)
        case options_of.AdamW8bit(beta1=beta1, beta2=beta2, eps=eps):
            return _bitsandbytes().AdamW8bit(groups, lr=lr, betas=(beta1, beta2), eps=eps)
        case options_of.Lion(beta1=beta1, beta2=beta2):
            from timm.optim.lion import Lion

            return Lion(groups, lr=lr, betas=(beta1, beta2))
        case options_of.Muon():
            from .muon import Muon

            return Muon(
                groups,
                lr=lr,
                betas=(options.beta1, options.beta2),
                eps=options.eps,
                momentum=options.momentum,
                nesterov=options.nesterov,
                iterations=options.iterations,
            )
        case options_of.Sgd(momentum=momentum, nesterov=nesterov):
            return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0)
        case options_of.Timm(name=name, options=more):
            return _timm(name, more, groups, lr, decay)
    raise ConfigError(f"the optimizer {options.type!r} is registered, but nothing builds it")


def _bitsandbytes() -> Any:
    try:
        from bitsandbytes import optim  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(
            "the optimizer adamw_8bit needs the package bitsandbytes: install it, or use adamw or muon"
        ) from error
    return optim


def _timm(
    name: str, more: dict[str, Any], groups: list[dict[str, Any]], lr: float, decay: float
) -> torch.optim.Optimizer:
    from timm.optim._optim_factory import create_optimizer_v2, list_optimizers  # their home; timm.optim has them too

    known = [str(found) for found in list_optimizers()]
    if name.lower() not in known:
        raise ConfigError(f"optimizer.name: {unknown('timm optimizer', name, known)}")
    if name.lower() == "adahessian":
        raise ConfigError("timm's adahessian needs second derivatives, which a training step does not compute")
    try:
        return create_optimizer_v2(groups, opt=name, lr=lr, weight_decay=decay, **more)
    except (TypeError, ValueError, AssertionError, ImportError, RuntimeError) as error:
        raise ConfigError(f"timm's optimizer {name!r} refuses its options {more}: {error}") from error
