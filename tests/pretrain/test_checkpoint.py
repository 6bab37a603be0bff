"""Resumable states: whole, checked, read only by their own training, the same under every wrapper."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from curate.errors import DataError
from curate.pretrain.processes.world import ALONE, World
from curate.pretrain.state.background import BackgroundWriter, Copies
from curate.pretrain.state.checkpoint import Checkpoints, SpoiltState, TrainingState, agreed
from curate.pretrain.state.training_inputs import Inputs, differences
from curate.pretrain.state.whole_state import unwrapped, whole_state

INPUTS = Inputs({"recipe": {"lr": 0.1, "warmup": 3}, "samples_seen": 64})


class Average:
    """A moving average, as far as a checkpoint cares."""

    def __init__(self, model: nn.Module) -> None:
        self.updates = 0
        self.weights = {k: v.detach().clone() for k, v in model.named_parameters()}

    def update(self, model: nn.Module) -> None:
        self.updates += 1
        with torch.no_grad():
            for name, value in model.named_parameters():
                self.weights[name].lerp_(value, 0.25)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "averages": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = state["updates"]
        for name, value in state["averages"].items():
            self.weights[name].copy_(value)


def training(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer, Average]:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    groups = [
        {"params": [model[0].weight, model[2].weight]},
        {"params": [model[0].bias, model[2].bias, *model[1].parameters()], "weight_decay": 0.0},
    ]
    return model, torch.optim.AdamW(groups, lr=0.05, weight_decay=0.3), Average(model)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, average: Average, number: int) -> float:
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(100 + number))
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    average.update(model)
    return loss.item()


def run(scratch: Path, steps: int, until: int | None = None, every: int = 1, threaded: bool = True) -> tuple:
    """Train up to `steps`, saving every `every` steps, killed after `until`."""
    model, optimizer, average = training()
    with Checkpoints(str(scratch), INPUTS, every_s=1e9, every_steps=every, threaded=threaded) as checkpoints:
        state = checkpoints.restore(model, optimizer, average)
        began = state.step
        while state.step < (until or steps):
            state.losses.append(step(model, optimizer, average, state.step))
            state.step += 1
            if checkpoints.due(state.step):
                checkpoints.save(state, model, optimizer, average)
    return model.state_dict(), average, state, began


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


_UNDISTURBED: list[tuple] = []  # made once


def undisturbed(folder: Path) -> tuple:
    if not _UNDISTURBED:
        _UNDISTURBED.append(run(folder / "undisturbed", 12))
    return _UNDISTURBED[0]


@settings(max_examples=5, deadline=None)
@given(kills=st.lists(st.integers(1, 11), max_size=3), every=st.integers(1, 4), threaded=st.booleans())
def test_resumed_training_is_the_undisturbed_one(tmp_path_factory, kills, every, threaded):
    folder = tmp_path_factory.mktemp("state")
    expected = undisturbed(folder)
    for until in sorted(kills):
        run(folder / "killed", 12, until, every, threaded)
    got = run(folder / "killed", 12, None, every, threaded)
    assert got[3] == max((k // every * every for k in kills), default=0)
    assert same(got[0], expected[0])
    assert got[1].updates == expected[1].updates
    assert same(got[1].weights, expected[1].weights)
    assert vars(got[2]) == vars(expected[2])


def test_state_is_that_of_its_step_though_written_later(tmp_path):
    model, optimizer, average = training()
    started, go_on = threading.Event(), threading.Event()
    checkpoints = Checkpoints(str(tmp_path), INPUTS)
    written = checkpoints._write

    def slowly(*arguments):
        started.set()
        assert go_on.wait(20)
        written(*arguments)

    checkpoints._write = slowly
    state = TrainingState()
    state.losses.append(step(model, optimizer, average, 0))
    state.step = 1
    before = {k: v.clone() for k, v in model.state_dict().items()}
    checkpoints.save(state, model, optimizer, average)
    assert started.wait(20)
    state.losses.append(step(model, optimizer, average, 1))  # the loop goes on while the state waits for its disk
    state.step = 2
    assert not list(tmp_path.glob("*.json"))
    go_on.set()
    checkpoints.close()
    again, other, mean = training(1)
    restored = Checkpoints(str(tmp_path), INPUTS).restore(again, other, mean)
    assert (restored.step, len(restored.losses)) == (1, 1)
    assert same(before, again.state_dict())


def test_two_states_are_kept_and_a_spoilt_one_is_passed_over(tmp_path):
    run(tmp_path, 12, 7)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"state_{n:010d}.{e}" for n in (6, 7) for e in ("json", "pt")]
    newest = tmp_path / "state_0000000007.pt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1  # one bit, which torch would not notice
    newest.write_bytes(data)
    with pytest.warns(SpoiltState, match="0000000007"):
        *_, began = run(tmp_path, 12, 9)
    assert began == 6
    assert sorted(p.name for p in tmp_path.iterdir())[-1] == "state_0000000009.pt"
    (tmp_path / "state_0000000009.json").write_bytes(b'{"step": 9, "bl')
    (tmp_path / "state_0000000008.pt").write_bytes(b"")
    with pytest.warns(SpoiltState), pytest.raises(DataError, match="none of the training states"):
        run(tmp_path, 12)


def test_tensors_without_a_receipt_are_no_state(tmp_path):
    run(tmp_path, 12, 3)
    (tmp_path / "state_0000000008.pt").write_bytes(b"torn")
    *_, began = run(tmp_path, 12, 4)
    assert began == 3
    assert not (tmp_path / "state_0000000008.pt").exists()


def test_another_schedule_is_refused_by_name(tmp_path):
    run(tmp_path, 12, 3)
    model, optimizer, average = training()
    other = Inputs({"recipe": {"lr": 0.1, "warmup": 4, "ema": None}, "samples_seen": 128})
    with pytest.raises(DataError) as refused:
        Checkpoints(str(tmp_path), other).restore(model, optimizer, average)
    told = str(refused.value)
    assert "recipe.ema is new (null); recipe.warmup was 3 and is 4; samples_seen was 64 and is 128." in told
    receipt = json.loads((tmp_path / "state_0000000003.json").read_text())
    assert receipt["described"] == {"recipe": {"lr": 0.1, "warmup": 3}, "samples_seen": 64}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([1.0, 0.5, "a", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(before=st.dictionaries(st.sampled_from("xyz"), JSON), now=st.dictionaries(st.sampled_from("xyz"), JSON))
def test_digests_differ_exactly_when_a_difference_is_told(before, now):
    assert (Inputs(before).digest == Inputs(now).digest) == (differences(before, now) == [])


def test_no_code_is_unpickled(tmp_path):
    run(tmp_path, 12, 2)
    marker = tmp_path / "pwned"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (marker,))

    path = tmp_path / "state_0000000002.pt"
    torch.save({"state": Evil()}, path)
    from curate.pretrain.state.checkpoint import _digest

    receipt = tmp_path / "state_0000000002.json"
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"blake2b": _digest(str(path))}))
    with pytest.warns(SpoiltState):
        *_, began = run(tmp_path, 12, 2)
    assert began == 1
    assert not marker.exists()


def test_errors_of_the_thread_surface(tmp_path):
    blocked = tmp_path / "scratch"
    blocked.write_text("a file where a folder should be")
    model, optimizer, average = training()
    checkpoints = Checkpoints(str(blocked), INPUTS)
    checkpoints.save(TrainingState(step=1), model, optimizer, average)
    with pytest.raises(OSError, match="scratch"):
        checkpoints.save(TrainingState(step=2), model, optimizer, average)
    checkpoints.close()
    with pytest.raises(ZeroDivisionError), BackgroundWriter() as writer:
        writer.submit(lambda: 1 // 0)

    def fails_twice() -> None:
        with BackgroundWriter() as writer:
            writer.submit(lambda: 1 // 0)
            raise KeyError("the training's own")

    with pytest.raises(KeyError) as first:
        fails_twice()
    assert "could not be written" in first.value.__notes__[0]


def test_copies_use_their_memory_again():
    copies = Copies()
    value = {"a": [torch.ones(3), 1.5], "b": {"c": torch.arange(4)}}
    first = copies.take(value)
    value["a"][0].zero_()
    assert first["a"][0].tolist() == [1, 1, 1]
    second = copies.take(value)
    assert second["a"][0].data_ptr() == first["a"][0].data_ptr()
    assert second["b"]["c"].tolist() == [0, 1, 2, 3]
    assert copies.take({"a": [torch.ones(5), 2]})["a"][0].shape == (5,)


def test_due_by_clock_and_by_step(tmp_path):
    assert Checkpoints(str(tmp_path), INPUTS, every_s=0).due(1)
    by_step = Checkpoints(str(tmp_path), INPUTS, every_s=1e9, every_steps=3)
    assert [n for n in range(1, 8) if by_step.due(n)] == [3, 6]
    assert agreed(True, ALONE)
    assert not agreed(False, ALONE)


def _processes(rank: int, folder: str) -> None:
    """A network on two processes: saved under FSDP2 and under DDP, read under FSDP2."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    world = World(rank, 2)
    torch.set_num_threads(1)

    def make(seed: int, sharded: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(seed)
        network: nn.Module = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
        if sharded:
            fully_shard(network)
        else:
            network = nn.parallel.DistributedDataParallel(network)
        return network, torch.optim.AdamW(network.parameters(), lr=0.1)

    def advance(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
        network(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    states = []
    for sharded in (True, False):
        scratch = f"{folder}/{'fsdp' if sharded else 'ddp'}"
        network, optimizer = make(0, sharded)
        advance(network, optimizer)
        average = Average(unwrapped(network))
        with Checkpoints(scratch, INPUTS, world) as checkpoints:
            checkpoints.save(TrainingState(step=1), network, optimizer, average)
        dist.barrier()
        advance(network, optimizer)
        states.append(whole_state(network, optimizer, world))
    assert bool(states[0]) == (rank == 0)
    if rank == 0:
        for name in states[0]["weights"]:
            torch.testing.assert_close(states[0]["weights"][name], states[1]["weights"][name])
        assert list(unwrapped(network).state_dict()) == list(states[0]["weights"])
    for scratch in ("fsdp", "ddp"):  # either can be gone on from under FSDP2
        network, optimizer = make(7, True)
        average = Average(network)
        assert Checkpoints(f"{folder}/{scratch}", INPUTS, world).restore(network, optimizer, average).step == 1
        for name, weight in network.named_parameters():
            assert torch.equal(average.weights[name].full_tensor(), weight.full_tensor())
        advance(network, optimizer)
        again = whole_state(network, optimizer, world)
        if rank == 0:
            torch.testing.assert_close(again["weights"], states[0]["weights"])
            torch.testing.assert_close(again["optimizer"], states[0]["optimizer"])
    assert agreed(rank == 1, world)
    dist.barrier()
    dist.destroy_process_group()


def test_one_state_for_ddp_fsdp_and_a_process_alone(tmp_path):
    commands = [[sys.executable, __file__, str(rank), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(c, stderr=subprocess.PIPE, text=True) for c in commands]
    errors = [p.communicate(timeout=120)[1] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], errors
    alone = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    optimizer = torch.optim.AdamW(alone.parameters(), lr=0.1)
    assert Checkpoints(str(tmp_path / "fsdp"), INPUTS).restore(alone, optimizer).step == 1
    assert optimizer.state_dict()["state"][0]["exp_avg"].shape == (7, 5)


if __name__ == "__main__":
    _processes(int(sys.argv[1]), sys.argv[2])
    os._exit(0)  # as our workers do: torch's threads may abort an interpreter that is shutting down
