"""The gradient of a downstream loss with respect to the weights of the samples that a training step was made of.

One step is ``theta' = AdamW(theta, g)`` with ``g = grad L_up(theta, w)``, and the question is ``dL_down(theta') / dw``.
Writing ``v = dL_down/dg`` (elementwise through AdamW), it is

    dL_down/dw  =  d/dw <v, grad L_up(theta, w)>  =  d/dw [ d/dh L_up(theta + h v, w) at h = 0 ]
                =  d/dw  sum_e <dL_up/de, de(theta + h v)/dh>

over everything ``e`` through which the model enters the loss: image features, text features *and* the logarithm of the
logit scale. The derivatives of the features come from forward-mode differentiation, which stores no activations, so
the towers are never differentiated twice; what is differentiated twice is the loss over the features, a ``(b, b)``
matrix. The price over a plain training step: one more forward pass that carries tangents (about two passes' worth), and
the downstream batch. Activations are kept for `micro_batch` samples at a time.

Source: Shechter et al., "Filter Like You Test", arXiv 2503.08805, NeurIPS 2025.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

Tensors = dict[str, torch.Tensor]
Pieces = Sequence[Any]
"""A batch cut into what goes through the towers at a time."""


def weighted_loss(
    image: torch.Tensor, text: torch.Tensor, log_scale: torch.Tensor, log_weights: torch.Tensor
) -> torch.Tensor:
    """``1/2 sum_i w_i [-log(w_i e^l_ii / sum_j w_j e^l_ij)]`` plus the same over the columns of ``l``.

    Args:
        image, text: L2-normalised features ``(b, d)``, row i of both is one sample.
        log_scale: logarithm of the factor on the cosines.
        log_weights: ``(b,)``; the weights sum to 1. Equal weights give CLIP's loss.
    """
    logits = log_scale.exp() * image @ text.T
    labels = torch.arange(len(image), device=image.device)
    rows = F.cross_entropy(logits + log_weights, labels, reduction="none")
    columns = F.cross_entropy(logits.T + log_weights, labels, reduction="none")
    return (log_weights.exp() * (rows + columns)).sum() / 2


def class_loss(
    image: torch.Tensor, prompts: torch.Tensor, log_scale: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of images ``(b, d)`` against one prompt per class ``(c, d)``, and the share that is right."""
    logits = log_scale.exp() * image @ prompts.T
    return F.cross_entropy(logits, labels), (logits.detach().argmax(1) == labels).float().mean()


@dataclass
class AdamWState:
    """Parameters on their way: AdamW written out, so that it can be differentiated.

    Attributes:
        parameters: by name, detached.
        mean, square: running means of gradients and of their squares.
        decay: decoupled weight decay of each parameter.
        step: steps done.
    """

    parameters: Tensors
    decay: Mapping[str, float]
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    mean: Tensors = field(default_factory=dict)
    square: Tensors = field(default_factory=dict)
    step: int = 0

    def __post_init__(self) -> None:
        for moments in (self.mean, self.square):
            for name, value in self.parameters.items():
                moments.setdefault(name, torch.zeros_like(value))

    @torch.no_grad()
    def advanced(self, gradients: Tensors, rate: float) -> AdamWState:
        """The state one step later; an entry whose second moment is 0 is only decayed."""
        after = AdamWState({}, self.decay, self.beta1, self.beta2, self.eps, step=self.step + 1)
        for name, value in self.parameters.items():
            g = gradients[name]
            mean = self.mean[name] * self.beta1 + g * (1 - self.beta1)
            square = self.square[name] * self.beta2 + g * g * (1 - self.beta2)
            m_hat, root = after._corrected(mean, square)
            move = torch.where(root > 0, m_hat / (root + self.eps), torch.zeros_like(root))
            after.parameters[name] = value * (1 - rate * self.decay[name]) - rate * move
            after.mean[name], after.square[name] = mean, square
        return after

    @torch.no_grad()
    def pulled_back(self, gradients: Tensors, cotangents: Tensors, rate: float) -> Tensors:
        """``dL/dgradients`` of the step that led to this state, from ``dL/dparameters``, elementwise.

        With ``r = sqrt(v_hat)``: ``d move/dg = (1-b1)/c1 / (r+eps) - m_hat / (r+eps)^2 * (1-b2) g / (c2 r)``. Where r
        is 0 the entry did not depend on its gradient; the limit of the formula would be 0/0.
        """
        found: Tensors = {}
        first, second = 1 - self.beta1**self.step, 1 - self.beta2**self.step
        for name, g in gradients.items():
            m_hat, root = self._corrected(self.mean[name], self.square[name])
            moved = root > 0
            safe = torch.where(moved, root, torch.ones_like(root))
            below = safe + self.eps
            slope = (1 - self.beta1) / first / below - m_hat / below**2 * ((1 - self.beta2) / second * g / safe)
            found[name] = torch.where(moved, -rate * cotangents[name] * slope, torch.zeros_like(root))
        return found

    def _corrected(self, mean: torch.Tensor, square: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``m_hat`` and ``sqrt(v_hat)``."""
        return mean / (1 - self.beta1**self.step), (square / (1 - self.beta2**self.step)).sqrt()


class Features:
    """Features of one module as a function of its parameters: values, pull-backs and directional derivatives.

    The module maps one piece of a batch to ``(n, d)`` features. It is run in training mode without dropout, so that
    every pass over a batch computes the same function; batch norms use the statistics of their piece.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module.train()
        for part in module.modules():
            if "drop" in type(part).__name__.lower():
                part.eval()
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.track_running_stats = False
        names = {id(value): name for name, value in module.named_parameters()}
        self._places = [  # every slot of every parameter; a shared one has several
            (part, slot, names[id(value)])
            for part in module.modules()
            for slot, value in part._parameters.items()
            if value is not None
        ]

    def _run(self, parameters: Tensors, piece: Any) -> torch.Tensor:
        """Features of one piece under these parameters (`torch.func.functional_call`, 20 ms a call cheaper)."""
        own = [part._parameters[slot] for part, slot, _ in self._places]
        try:
            for part, slot, name in self._places:
                part._parameters[slot] = parameters[name]  # type: ignore[assignment]
            return self.module(piece)
        finally:
            for (part, slot, _), value in zip(self._places, own, strict=True):
                part._parameters[slot] = value

    @torch.no_grad()
    def values(self, parameters: Tensors, pieces: Pieces) -> torch.Tensor:
        """Features ``(b, d)`` of all pieces."""
        return torch.cat([self._run(parameters, piece) for piece in pieces])

    def pull(self, parameters: Tensors, pieces: Pieces, cotangents: torch.Tensor, into: Tensors) -> None:
        """Add ``dL/dparameters`` to `into`, from ``dL/dfeatures (b, d)``; one piece's activations at a time."""
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        start = 0
        for piece in pieces:
            with torch.enable_grad():
                found = self._run(leaves, piece)
            part = cotangents[start : start + len(found)]
            start += len(found)
            gradients = torch.autograd.grad(found, list(leaves.values()), part, allow_unused=True)
            for name, gradient in zip(leaves, gradients, strict=True):
                if gradient is not None:
                    into[name] += gradient

    @torch.no_grad()
    def push(self, parameters: Tensors, direction: Tensors, pieces: Pieces) -> tuple[torch.Tensor, torch.Tensor]:
        """Features, and their derivative along `direction` in parameter space; both ``(b, d)``."""
        values, tangents = [], []
        # Fused attention has no forward-mode derivative; the plain form has.
        with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
            duals = {name: forward_ad.make_dual(value, direction[name]) for name, value in parameters.items()}
            for piece in pieces:
                value, tangent = forward_ad.unpack_dual(self._run(duals, piece))
                values.append(value)
                tangents.append(torch.zeros_like(value) if tangent is None else tangent)
        return torch.cat(values), torch.cat(tangents)


@dataclass
class Upstream:
    """The batch that is weighted.

    Attributes:
        images, texts: pieces; texts hold each distinct caption once.
        caption: ``(b,)`` row of the texts' features of each sample.
    """

    images: Pieces
    texts: Pieces
    caption: torch.Tensor


@dataclass
class Downstream:
    """The labelled batch that judges: pieces of images, pieces of one prompt per class, and the images' classes."""

    images: Pieces
    prompts: Pieces
    labels: torch.Tensor


@dataclass
class Outcome:
    """What one step found.

    Attributes:
        after: the reference model one step later.
        directional: scalar; its gradient with respect to whatever made the log-weights is ``dL_down`` of it.
        scale_gradient: of the downstream log-scale; None when the model's own is used.
        upstream_loss, downstream_loss, accuracy: scalars, on the batch.
    """

    after: AdamWState
    directional: torch.Tensor
    scale_gradient: torch.Tensor | None
    upstream_loss: torch.Tensor
    downstream_loss: torch.Tensor
    accuracy: torch.Tensor


def look_ahead(
    towers: Features,
    logit_scale: str,
    reference: AdamWState,
    upstream: Upstream,
    downstream: Downstream,
    log_weights: torch.Tensor,
    downstream_scale: torch.Tensor | None,
    rate: float,
) -> Outcome:
    """One step of the reference model on the weighted batch, and how the weights should have been.

    Args:
        logit_scale: name of the parameter that holds the logarithm of the logit scale.
        log_weights: ``(b,)`` with its graph.
        downstream_scale: log-scale of the downstream logits; None = the model's logit scale, through which the weights
            then act on the downstream loss as well.
        rate: learning rate of the reference model.
    """
    theta, weights = reference.parameters, log_weights.detach()
    gradients = {name: torch.zeros_like(value) for name, value in theta.items()}
    image, distinct = towers.values(theta, upstream.images), towers.values(theta, upstream.texts)
    leaves = [x.detach().requires_grad_() for x in (image, distinct, theta[logit_scale])]
    with torch.enable_grad():
        upstream_loss = weighted_loss(leaves[0], leaves[1][upstream.caption], leaves[2], weights)
    of_image, of_text, of_scale = torch.autograd.grad(upstream_loss, leaves)
    towers.pull(theta, upstream.images, of_image, gradients)
    towers.pull(theta, upstream.texts, of_text, gradients)
    gradients[logit_scale] += of_scale
    after = reference.advanced(gradients, rate)

    cotangents = {name: torch.zeros_like(value) for name, value in theta.items()}
    shown = towers.values(after.parameters, downstream.images)
    prompts = towers.values(after.parameters, downstream.prompts)
    scale = after.parameters[logit_scale] if downstream_scale is None else downstream_scale
    leaves = [x.detach().requires_grad_() for x in (shown, prompts, scale)]
    with torch.enable_grad():
        downstream_loss, accuracy = class_loss(leaves[0], leaves[1], leaves[2], downstream.labels)
    of_shown, of_prompts, of_scale = torch.autograd.grad(downstream_loss, leaves)
    towers.pull(after.parameters, downstream.images, of_shown, cotangents)
    towers.pull(after.parameters, downstream.prompts, of_prompts, cotangents)
    if downstream_scale is None:
        cotangents[logit_scale] += of_scale

    v = after.pulled_back(gradients, cotangents, rate)
    image, image_moves = towers.push(theta, v, upstream.images)
    distinct, text_moves = towers.push(theta, v, upstream.texts)
    leaves = [x.detach().requires_grad_() for x in (image, distinct, theta[logit_scale])]
    with torch.enable_grad():
        loss = weighted_loss(leaves[0], leaves[1][upstream.caption], leaves[2], log_weights)
        slopes = torch.autograd.grad(loss, leaves, create_graph=True)
        moves = (image_moves, text_moves, v[logit_scale])
        directional = torch.stack([(s * m).sum() for s, m in zip(slopes, moves, strict=True)]).sum()
    return Outcome(
        after,
        directional,
        None if downstream_scale is None else of_scale,
        upstream_loss.detach(),
        downstream_loss.detach(),
        accuracy,
    )
