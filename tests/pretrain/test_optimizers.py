import io
import sys

import numpy as np
import pytest
import timm.optim
import torch
from open_clip_train import scheduler  # noqa: F401  (the trainer whose state format is used below)
from pydantic import TypeAdapter, ValidationError
from torch import nn

from curate.errors import ConfigError
from curate.pretrain.optim import optimizer_options as options_of
from curate.pretrain.optim.muon import orthogonalised
from curate.pretrain.optim.optimizer import build_optimizer, set_rate

OURS = [
    options_of.AdamW(),
    options_of.Lion(),
    options_of.Muon(),
    options_of.Sgd(),
    options_of.Sgd(momentum=0.0),
    options_of.AdamW(image_layer_decay=0.5, text_lr=0.1),
]
NEEDS_MORE = ("bnb", "fused", "kron", "adahessian")  # a GPU; a compiler; second derivatives
TIMMS = [name for name in timm.optim.list_optimizers() if not name.startswith(NEEDS_MORE)]


@pytest.fixture(autouse=True)
def one_thread():
    """Several threads on so small tensors do nothing but wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Net(nn.Module):
    """Small, but with all kinds of parameters and names that the groups know."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            block = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 3), "ln": nn.LayerNorm(4)})
            stem = nn.Conv2d(3, 4, 3)
            self.visual = nn.ModuleDict({"conv1": stem, "layers": nn.ModuleList([block])})
            self.text = nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleDict({"qkv": nn.Linear(4, 12)})])})
            self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.visual["conv1"](x)
        block = self.visual["layers"][0]
        x = block["ln"](block["conv"](x).mean((2, 3)))
        q, k, v = self.text["blocks"][0]["qkv"](x).chunk(3, 1)
        return self.head(q * k + v)


def train(net, optimizer, start, stop):
    losses = []
    for step in range(start, stop):
        generator = torch.Generator().manual_seed(step)
        torch.manual_seed(step)
        x = torch.randn(6, 3, 8, 8, generator=generator)
        set_rate(optimizer, 1e-3 * (1 + step))
        loss = (net(x) - x.mean((2, 3))[:, :2]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def reread(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    "option", [*OURS, *(options_of.Timm(name=n) for n in TIMMS)], ids=lambda o: getattr(o, "name", o.type)
)
def test_a_resumed_run_has_the_same_bits(option):
    straight = Net()
    train(straight, build_optimizer(straight, option, 1e-3, 0.1), 0, 5)

    first = Net()
    optimizer = build_optimizer(first, option, 1e-3, 0.1)
    train(first, optimizer, 0, 3)
    state = reread({"net": first.state_dict(), "optimizer": optimizer.state_dict()})
    second = Net(seed=1)
    optimizer = build_optimizer(second, option, 1e-3, 0.1)
    second.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    train(second, optimizer, 3, 5)
    for a, b in zip(straight.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(straight.parameters(), Net().parameters(), strict=True))


@pytest.mark.parametrize("option", OURS[:4], ids=lambda o: o.type)
def test_the_loss_falls(option):
    net = Net()
    losses = train(net, build_optimizer(net, option, 1e-3, 0.0), 0, 30)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def matrix_of(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_lion_is_the_papers_algorithm():
    net = nn.Linear(4, 3, bias=False)
    optimizer = build_optimizer(net, options_of.Lion(beta1=0.9, beta2=0.95), 0.01, 0.1)
    weight, momentum = net.weight.detach().clone(), torch.zeros(3, 4)
    for step in range(4):
        gradient = matrix_of(step, 3, 4)
        net.weight.grad = gradient.clone()
        optimizer.step()
        weight = weight - 0.01 * (torch.sign(0.9 * momentum + 0.1 * gradient) + 0.1 * weight)
        momentum = 0.95 * momentum + 0.05 * gradient
    torch.testing.assert_close(net.weight.detach(), weight)


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 40), (3, 16, 8)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    matrix = matrix_of(0, *shape)
    made = orthogonalised(matrix, 5)
    assert made.shape == matrix.shape
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.3
    assert values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    nearest = u @ vh
    cosine = (made * nearest).sum() / (made.norm() * nearest.norm())
    assert cosine > 0.95
    torch.testing.assert_close(orthogonalised(1e4 * matrix, 5), made, rtol=1e-3, atol=1e-4)


def test_muon_agrees_with_torchs():
    ours, theirs = nn.Module(), nn.Linear(6, 10, bias=False)
    ours.blocks = nn.ModuleList([nn.Linear(6, 10, bias=False)])
    ours.blocks[0].load_state_dict(theirs.state_dict())
    mine = build_optimizer(ours, options_of.Muon(), 0.02, 0.1)
    assert mine.param_groups[0]["orthogonal"]
    reference = torch.optim.Muon(theirs.parameters(), 0.02, 0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        ours.blocks[0].weight.grad, theirs.weight.grad = matrix_of(step, 10, 6), matrix_of(step, 10, 6)
        mine.step()
        reference.step()
    torch.testing.assert_close(ours.blocks[0].weight, theirs.weight, atol=2e-3, rtol=0)  # theirs computes in bfloat16


def test_muon_handles_queries_keys_and_values_one_by_one():
    joint, parts = nn.Module(), nn.Module()
    joint.blocks = nn.ModuleList([nn.ModuleDict({"qkv": nn.Linear(8, 24, bias=False)})])
    parts.blocks = nn.ModuleList([nn.Linear(8, 8, bias=False) for _ in range(3)])
    gradients = [matrix_of(i, 8, 8) * (i + 1) for i in range(3)]
    with torch.no_grad():
        for block, piece in zip(parts.blocks, joint.blocks[0]["qkv"].weight.chunk(3), strict=True):
            block.weight.copy_(piece)
    joint.blocks[0]["qkv"].weight.grad = torch.cat(gradients)
    for block, gradient in zip(parts.blocks, gradients, strict=True):
        block.weight.grad = gradient
    for net in (joint, parts):
        build_optimizer(net, options_of.Muon(), 0.02, 0.1).step()
    together = torch.cat([block.weight for block in parts.blocks])
    torch.testing.assert_close(joint.blocks[0]["qkv"].weight, together)


def test_errors_say_what_to_do(monkeypatch):
    with pytest.raises(ConfigError, match="did you mean 'lamb'"):
        build_optimizer(Net(), options_of.Timm(name="lambb"), 1e-3, 0.1)
    with pytest.raises(ConfigError, match="refuses its options"):
        build_optimizer(Net(), options_of.Timm(name="lamb", options={"speed": 3}), 1e-3, 0.1)
    with pytest.raises(ConfigError, match="second derivatives"):
        build_optimizer(Net(), options_of.Timm(name="adahessian"), 1e-3, 0.1)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match="needs the package bitsandbytes"):
        build_optimizer(Net(), options_of.AdamW8bit(), 1e-3, 0.1)
    with pytest.raises(ConfigError, match="locked"):
        build_optimizer(Net().requires_grad_(False), options_of.AdamW(), 1e-3, 0.1)
    with pytest.raises(ValidationError, match="did you mean 'lion'"):
        TypeAdapter(options_of.OptimizerOption).validate_python("lionn")
    assert TypeAdapter(options_of.OptimizerOption).validate_python("muon") == options_of.Muon()
