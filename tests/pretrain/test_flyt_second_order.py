"""The gradient of the look-ahead, against what is hard to get wrong: differentiating twice, and finite differences."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curate.pretrain.data.tokenizer import tokenizer_for
from curate.pretrain.models.architecture import build, resolve_model
from curate.pretrain.models.towers import Towers
from curate.pretrain.weighing.second_order import (
    AdamWState,
    Downstream,
    Features,
    Upstream,
    class_loss,
    look_ahead,
    weighted_loss,
)

B, D = 6, 5


class TinyClip(nn.Module):
    """Two small towers in float64; pieces of 7 numbers are images, of 4 are texts. One parameter is never used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.visual = nn.Sequential(nn.Linear(7, 8), nn.Tanh(), nn.Linear(8, D))
        self.textual = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, D))
        self.logit_scale = nn.Parameter(torch.tensor(1.3))
        self.unused = nn.Parameter(torch.ones(3))
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize((self.visual if x.shape[1] == 7 else self.textual)(x), dim=-1)


@pytest.fixture
def world():
    rng = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    towers = Features(TinyClip())
    parameters = {n: p.detach().clone() for n, p in towers.module.named_parameters()}
    decay = {n: 0.2 if p.ndim > 1 else 0.0 for n, p in parameters.items()}
    state = AdamWState(parameters, decay)
    for step in range(3):  # moments that are neither fresh nor a copy of the gradient
        gradients = {n: 0.1 * draw(*p.shape) for n, p in parameters.items()}
        gradients["unused"].zero_()
        state = state.advanced(gradients, 1e-3 * (step + 1))
    images, texts, shown, prompts = draw(B, 7), draw(B - 1, 4), draw(8, 7), draw(3, 4)
    caption = torch.tensor([0, 1, 2, 3, 4, 1])
    labels = torch.arange(8) % 3
    z = draw(B, 2)
    return towers, state, (images, texts, caption), (shown, prompts, labels), z


def brute_loss(world, phi, own_scale, rate):
    """L_down as one differentiable function of phi, by autograd through autograd and torch's formulas in a row."""
    towers, state, (images, texts, caption), (shown, prompts, labels), z = world
    leaves = {n: p.clone().requires_grad_() for n, p in state.parameters.items()}

    def run(p, x):
        return torch.func.functional_call(towers.module, p, (x,))

    w = torch.softmax(z @ phi, 0)
    logits = leaves["logit_scale"].exp() * run(leaves, images) @ run(leaves, texts)[caption].T
    up = 0.0
    for side in (logits, logits.T):
        shares = w * side.exp()
        up = up - 0.5 * (w * torch.log(shares.diagonal() / shares.sum(1))).sum()
    gradients = torch.autograd.grad(up, list(leaves.values()), create_graph=True, allow_unused=True)
    t, moved = state.step + 1, {}
    for (name, value), g in zip(leaves.items(), gradients, strict=True):
        kept = value.detach() * (1 - rate * state.decay[name])
        if g is None:
            moved[name] = kept
            continue
        mean = state.beta1 * state.mean[name] + (1 - state.beta1) * g
        square = state.beta2 * state.square[name] + (1 - state.beta2) * g**2
        m_hat, v_hat = mean / (1 - state.beta1**t), square / (1 - state.beta2**t)
        moved[name] = kept - rate * m_hat / (v_hat.sqrt() + state.eps)
    scale = moved["logit_scale"] if own_scale is None else own_scale
    return class_loss(run(moved, shown), run(moved, prompts), scale, labels)[0]


def ours(world, phi, own_scale, rate, pieces=1):
    towers, state, (images, texts, caption), (shown, prompts, labels), z = world

    def cut(x):
        return x.tensor_split(pieces)

    found = look_ahead(
        towers,
        "logit_scale",
        state,
        Upstream(cut(images), cut(texts), caption),
        Downstream(cut(shown), [prompts], labels),
        F.log_softmax(z @ phi, 0),
        own_scale,
        rate,
    )
    return found, torch.autograd.grad(found.directional, phi)[0]


@pytest.mark.parametrize("own_scale", [None, 2.65926])
@pytest.mark.parametrize("pieces", [1, 3])
def test_equals_differentiating_twice(world, own_scale, pieces):
    phi = torch.tensor([0.4, -0.7], dtype=torch.float64, requires_grad=True)
    scale = None if own_scale is None else torch.tensor(own_scale, dtype=torch.float64)
    loss = brute_loss(world, phi, scale, 0.05)
    expected = torch.autograd.grad(loss, phi)[0]
    found, gradient = ours(world, phi, scale, 0.05, pieces)
    torch.testing.assert_close(found.downstream_loss, loss.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("own_scale", [None, 2.65926])
def test_equals_finite_differences(world, own_scale):
    scale = None if own_scale is None else torch.tensor(own_scale, dtype=torch.float64)
    at = torch.tensor([0.4, -0.7], dtype=torch.float64)
    _, gradient = ours(world, at.clone().requires_grad_(), scale, 0.05)
    for i in range(2):
        h = torch.zeros(2, dtype=torch.float64)
        h[i] = 1e-5
        losses = [ours(world, (at + s * h).requires_grad_(), scale, 0.05)[0].downstream_loss for s in (1, -1)]
        assert float(gradient[i]) == pytest.approx(float(losses[0] - losses[1]) / 2e-5, rel=1e-5)


def test_the_logit_scale_matters_where_the_downstream_loss_uses_it(world):
    """Without its component the gradient is wrong; with a downstream scale of its own, the component is exactly 0."""
    phi = torch.tensor([0.4, -0.7], dtype=torch.float64, requires_grad=True)
    _, whole = ours(world, phi, None, 0.05)
    state = world[1]
    state.square["logit_scale"] *= 1e30  # now its step, and so its part of the answer, is nothing
    _, without = ours(world, phi, None, 0.05)
    assert float((whole - without).abs().max()) > 1e-2 * float(whole.abs().max())
    state.square["logit_scale"] /= 1e30
    scale = torch.tensor(2.65926, dtype=torch.float64)
    _, own = ours(world, phi, scale, 0.05)
    state.square["logit_scale"] *= 1e30
    _, own_without = ours(world, phi, scale, 0.05)
    assert torch.equal(own, own_without)


def test_the_step_is_torchs_adamw(world):
    _, start, *_ = world
    state = AdamWState({n: p.clone() for n, p in start.parameters.items()}, start.decay)
    leaves = {n: nn.Parameter(p.clone()) for n, p in state.parameters.items()}
    groups = [{"params": [leaves[n]], "weight_decay": state.decay[n]} for n in leaves]
    theirs = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.98), eps=1e-6)
    rng = torch.Generator().manual_seed(2)
    for _ in range(4):
        gradients = {n: torch.randn(p.shape, generator=rng, dtype=p.dtype) for n, p in leaves.items()}
        gradients["visual.0.weight"][0] = 0  # never a gradient: decayed only
        for n, leaf in leaves.items():
            leaf.grad = gradients[n].clone()
        theirs.step()
        state = state.advanced(gradients, 0.02)
    for n, leaf in leaves.items():
        torch.testing.assert_close(state.parameters[n], leaf.detach(), rtol=1e-12, atol=1e-14)
    row = start.parameters["visual.0.weight"][0] * (1 - 0.02 * 0.2) ** 4
    torch.testing.assert_close(state.parameters["visual.0.weight"][0], row)
    back = state.pulled_back(gradients, {n: torch.ones_like(p) for n, p in state.parameters.items()}, 0.02)
    assert torch.equal(back["visual.0.weight"][0], torch.zeros_like(row))
    assert all(bool(torch.isfinite(v).all()) for v in back.values())


def test_equal_weights_give_the_loss_of_clip(world):
    rng = torch.Generator().manual_seed(3)
    image, text = (F.normalize(torch.randn(9, 4, generator=rng, dtype=torch.float64), dim=-1) for _ in range(2))
    scale = torch.tensor(2.0, dtype=torch.float64)
    logits, labels = scale.exp() * image @ text.T, torch.arange(9)
    clip = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    equal = torch.full((9,), -np.log(9), dtype=torch.float64)
    torch.testing.assert_close(weighted_loss(image, text, scale, equal), clip)


def test_a_sample_without_weight_is_no_negative_either(world):
    rng = torch.Generator().manual_seed(3)
    image, text = (F.normalize(torch.randn(5, 4, generator=rng, dtype=torch.float64), dim=-1) for _ in range(2))
    scale = torch.tensor(2.0, dtype=torch.float64)
    w = torch.tensor([0.5, 0.3, 0.2, 1e-30, 1e-30], dtype=torch.float64)
    torch.testing.assert_close(
        weighted_loss(image, text, scale, w.log()), weighted_loss(image[:3], text[:3], scale, w[:3].log())
    )


class Sides(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        spec = resolve_model(name)
        self.towers = Towers(build(spec, 0), spec.preprocess)

    def forward(self, x):
        return self.towers.encode_texts(x) if isinstance(x, np.ndarray) else self.towers.encode_images(x)


@pytest.mark.parametrize("name", ["RN-mini-32", "ViT-mini-8-32"])
def test_real_towers_equal_differentiating_twice(name):
    """float32 and fused kernels: equal to what they allow."""
    towers, spec = Features(Sides(name)), resolve_model(name)
    rng = torch.Generator().manual_seed(4)
    parameters = {n: p.detach().clone() for n, p in towers.module.named_parameters()}
    state = AdamWState(parameters, dict.fromkeys(parameters, 0.1), eps=1e-3)
    state = state.advanced({n: 0.02 * torch.randn(p.shape, generator=rng) for n, p in parameters.items()}, 1e-4)
    images, shown = (torch.randint(0, 255, (n, 3, 32, 32), generator=rng, dtype=torch.uint8) for n in (8, 6))
    tokenizer = tokenizer_for(spec.tokenizer, spec.config["text_cfg"])
    texts, prompts = tokenizer(["red dog", "a b c d", "cat", "two words"]), tokenizer(["one", "two three"])
    caption, labels = torch.arange(8) % 4, torch.arange(6) % 2
    z, phi = torch.randn(8, 2, generator=rng), torch.tensor([0.3, -0.2], requires_grad=True)
    name_of_scale, scale = "towers.model.logit_scale", torch.tensor(2.65926)
    arguments = Upstream([images], [texts], caption), Downstream([shown], [prompts], labels)
    found = look_ahead(towers, name_of_scale, state, *arguments, F.log_softmax(z @ phi, 0), scale, 0.01)
    gradient = torch.autograd.grad(found.directional, phi)[0]

    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        leaves = {n: p.clone().requires_grad_() for n, p in state.parameters.items()}

        def run(p, x):
            return torch.func.functional_call(towers.module, p, (x,))

        up = weighted_loss(
            run(leaves, images), run(leaves, texts)[caption], leaves[name_of_scale], F.log_softmax(z @ phi, 0)
        )
        gradients = torch.autograd.grad(up, list(leaves.values()), create_graph=True, allow_unused=True)
        moved = {}
        for (n, p), g in zip(leaves.items(), gradients, strict=True):
            g = torch.zeros_like(p) if g is None else g
            mean = (0.9 * state.mean[n] + 0.1 * g) / (1 - 0.9**2)
            square = (0.98 * state.square[n] + 0.02 * g**2) / (1 - 0.98**2)
            moved[n] = p.detach() * (1 - 0.01 * 0.1) - 0.01 * mean / (square.sqrt() + 1e-3)
        loss, _ = class_loss(run(moved, shown), run(moved, prompts), scale, labels)
        expected = torch.autograd.grad(loss, phi)[0]
    torch.testing.assert_close(found.downstream_loss, loss.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=2e-3, atol=1e-6)
