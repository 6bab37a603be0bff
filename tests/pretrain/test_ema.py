import io

import pytest
import torch
from torch import nn

from curate.errors import DataError
from curate.pretrain.optim.ema import Ema
from curate.pretrain.optim.ema_options import EmaOptions


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[2].bias.requires_grad_(False)
    return net


def step(net, number):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(number))
    net(x).square().mean().backward()
    with torch.no_grad():
        for p in net.parameters():
            if p.grad is not None:
                p -= 0.1 * p.grad
                p.grad = None


def values(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize(
    "options", [EmaOptions(decay=0.9), EmaOptions(decay=0.8, warmup=False), EmaOptions(decay=0.9, every=3)]
)
def test_the_average_is_the_one_worked_out_step_by_step(options):
    net = network()
    ema = Ema(net, options)
    expected, copied, updates = values(net), values(net), 0
    for number in range(10):
        step(net, number)
        ema.after_step(number)
        if (number + 1) % options.every == 0:
            keep = options.decay**options.every
            keep = min(keep, (1 + updates) / (10 + updates)) if options.warmup else keep
            expected = {n: keep * expected[n] + (1 - keep) * t for n, t in values(net).items()}
            copied, updates = values(net), updates + 1
    assert ema.updates == updates
    before = values(net)
    with ema.swapped():
        for name, tensor in net.state_dict().items():
            averaged = name in dict(net.named_parameters())
            torch.testing.assert_close(tensor, (expected if averaged else copied)[name])
        assert torch.equal(net[2].bias, before["2.bias"])  # locked: never averaged
    after = values(net)
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_weights_come_back_after_an_error():
    net = network()
    ema = Ema(net, EmaOptions(decay=0.5))
    step(net, 0)
    before = values(net)
    with pytest.raises(RuntimeError), ema.swapped():
        raise RuntimeError
    assert all(torch.equal(before[n], t) for n, t in values(net).items())


def test_a_resumed_average_has_the_same_bits():
    def run(net, ema, start, stop):
        for number in range(start, stop):
            step(net, number)
            ema.after_step(number)

    options = EmaOptions(decay=0.95, every=2)
    straight = network()
    whole = Ema(straight, options)
    run(straight, whole, 0, 9)

    net = network()
    ema = Ema(net, options)
    run(net, ema, 0, 5)
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "ema": ema.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again = network(seed=1)
    again.load_state_dict(state["net"])
    resumed = Ema(again, options)
    resumed.load_state_dict(state["ema"])
    run(again, resumed, 5, 9)
    assert resumed.updates == whole.updates
    for name, average in whole.state_dict()["averages"].items():
        assert torch.equal(average, resumed.state_dict()["averages"][name])


def test_another_networks_average_is_refused():
    ema = Ema(network(), EmaOptions())
    with pytest.raises(DataError, match="another network's"):
        ema.load_state_dict(Ema(nn.Linear(2, 2), EmaOptions()).state_dict())


def test_averages_of_half_precision_weights_are_kept_in_float32():
    net = nn.Linear(2, 2).bfloat16()
    ema = Ema(net, EmaOptions(decay=0.999, warmup=False))
    with torch.no_grad():
        net.weight.add_(1)
    ema.after_step(0)
    assert {t.dtype for t in ema.state_dict()["averages"].values()} == {torch.float32}
