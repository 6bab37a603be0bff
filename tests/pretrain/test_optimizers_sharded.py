"""Optimizers and the moving average over weights of which each process holds a shard (FSDP2), on two CPU processes."""

import os
import subprocess
import sys

import torch
import torch.distributed as dist
from torch import nn

from curate.pretrain.optim import optimizer_options as options_of
from curate.pretrain.optim.ema import Ema
from curate.pretrain.optim.ema_options import EmaOptions
from curate.pretrain.optim.optimizer import build_optimizer

OPTIONS = [options_of.AdamW(), options_of.Lion(), options_of.Muon(), options_of.Sgd()]


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Module()
        block = nn.ModuleDict({"qkv": nn.Linear(6, 18), "out": nn.Linear(18, 5)})
        net.visual = nn.ModuleDict({"blocks": nn.ModuleList([block]), "norm": nn.LayerNorm(5)})

        def forward(x):
            return net.visual["norm"](block["out"](block["qkv"](x).relu()))

        net.forward = forward
    return net


def train(net, option):
    """Weights after 4 steps, and their average, whole."""
    optimizer = build_optimizer(net, option, 0.01, 0.1)
    ema = Ema(net, EmaOptions(decay=0.7))
    for step in range(4):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        net(x)[:, 0].sum().backward()  # every process has the whole batch, so the mean of gradients is the gradient
        optimizer.step()
        optimizer.zero_grad()
        ema.after_step(step)
    weights = [whole(p) for p in net.parameters()]
    with ema.swapped():
        return weights, [whole(p) for p in net.parameters()]


def whole(p):
    p = p.detach()
    return (p.full_tensor() if hasattr(p, "full_tensor") else p).clone()


def sharded(rank, folder):
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    made = []
    for option in OPTIONS:
        net = network()
        fully_shard(net)
        made.append(train(net, option))
    if rank == 0:
        torch.save(made, f"{folder}/made.pt")
    dist.destroy_process_group()


def test_shards_are_trained_like_the_whole(tmp_path):
    command = [sys.executable, __file__, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    for option, made in zip(OPTIONS, torch.load(tmp_path / "made.pt"), strict=True):
        for ours, alone in zip(made, train(network(), option), strict=True):
            for a, b in zip(ours, alone, strict=True):
                torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5, msg=option.type)


if __name__ == "__main__":
    sharded(int(sys.argv[2]), sys.argv[1])
    os._exit(0)  # as our workers do: torch's threads may abort an interpreter that is shutting down
