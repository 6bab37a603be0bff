"""Meters by a clock that the test turns, and operations counted by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from curate.pretrain.models.architecture import build, resolve_model
from curate.pretrain.outputs.flops import network_flops, peak_flops
from curate.pretrain.outputs.speed import SpeedMeter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rates_of_a_window_and_of_the_whole_training(tmp_path):
    clock = Clock()
    meter = SpeedMeter(str(tmp_path), 1e9, 1e12, devices=2, device="a GPU", clock=clock)
    clock.now = 100.0  # loading
    meter.start()
    for wait in (0.5, 0.0):
        clock.now += 2.0
        meter.step(64, wait_s=wait, tokens=640)
    reading = meter.reading(samples_left=320)
    assert reading["samples_per_second"] == 32
    assert reading["tokens_per_second"] == 320
    assert reading["data_wait"] == pytest.approx(0.125)
    assert reading["step_seconds"] == 2
    assert reading["eta_seconds"] == 10
    assert reading["mfu"] == pytest.approx(32 * 1e9 / 2e12)
    assert reading["peak_rss_bytes"] > 1e7
    meter.pause()
    clock.now += 1000.0  # an evaluation
    meter.start()
    clock.now += 4.0
    meter.step(64, wait_s=9.0)
    assert meter.reading()["data_wait"] == 1.0
    facts = meter.facts(192)
    assert (facts["seconds"], facts["steps"], facts["samples"], facts["sessions"]) == (8.0, 3, 192, 1)
    assert (facts["flops"], facts["device"], facts["devices"]) == (192e9, "a GPU", 2)


def test_totals_go_on_over_kills_and_count_what_was_done_twice(tmp_path):
    clock = Clock()
    for _ in range(2):
        meter = SpeedMeter(str(tmp_path), clock=clock)
        meter.start()
        clock.now += 3.0
        meter.step(16)
        meter.reading()
        clock.now += 3.0
        meter.step(16)  # not read before the kill: forgotten
    assert SpeedMeter(str(tmp_path), clock=clock).facts(16)["samples"] == 32
    facts = SpeedMeter(str(tmp_path), clock=clock).facts(16)
    assert (facts["seconds"], facts["sessions"]) == (6.0, 4 - 0)
    assert "mfu" not in facts
    assert "flops" not in facts


def test_nothing_is_claimed_without_a_step(tmp_path):
    reading = SpeedMeter().reading(100)
    assert set(reading) == {"peak_rss_bytes"}
    assert not list(tmp_path.iterdir())


def test_peaks_are_looked_up_by_name():
    assert peak_flops("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert peak_flops("NVIDIA H100 PCIe", "bf16") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "fp32") == 19.5e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "fp32", tf32=True) == 156e12
    assert peak_flops("NVIDIA L40S", "bf16") == 362e12
    assert peak_flops("NVIDIA L40", "bf16") == 181e12
    assert peak_flops("cpu", "fp32") is None


class Two(nn.Module):
    """A pixel layer and a token layer; a tensor that is no buffer comes along."""

    def __init__(self, locked: bool = False) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(12, 5, bias=False), nn.Linear(4, 5, bias=False)
        self.constant = torch.ones(5)
        self.image.requires_grad_(not locked)

    def forward(self, images: torch.Tensor, tokens: np.ndarray | None) -> dict[str, torch.Tensor]:
        out = {"image": self.image(images.float().flatten(1)) * self.constant}
        if tokens is not None:
            out["text"] = self.text(torch.from_numpy(tokens).to(self.constant.device).float())
        return out


def test_operations_by_hand():
    """A linear layer: 2 x in x out forwards, and as much for its weights' gradient; pictures need no gradient."""
    assert network_flops(Two(), (2, 2), 4) == 2 * 2 * 12 * 5
    both = network_flops(Two(), (2, 2), 4, np.zeros((2, 4), np.int64))
    assert both == 2 * 2 * 12 * 5 + 2 * (2 * 2 * 4 * 5) / 4
    assert network_flops(Two(locked=True), (2, 2), 4) == 2 * 12 * 5


def test_a_real_network_is_counted_and_left_alone():
    from curate.pretrain.models.network import PairNetwork
    from curate.pretrain.models.towers import Towers

    spec = resolve_model("RN-mini-32")
    network = PairNetwork(Towers(build(spec, 0), spec.preprocess), spec.config["embed_dim"])
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.get_rng_state()
    tokens = np.zeros((3, spec.config["text_cfg"]["context_length"]), np.int64)
    tokens[:, 5] = 1
    counted = network_flops(network, spec.preprocess.size, 4, tokens)
    assert counted > network_flops(network, spec.preprocess.size, 4) > 1e5
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None and p.device.type == "cpu" for p in network.parameters())
