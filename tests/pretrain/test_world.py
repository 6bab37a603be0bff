"""Exchanges among 3 real processes. Run as a script, this file is one of them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from curate.pretrain.processes.world import ALONE, PeerLost, World, joined, share

SIZE = 3
TOTALS = (1, 2, 7, 9)
WINDOWS = {7: [(0, 4), (0, 7), (4, 7)], 9: [(0, 3), (3, 6), (6, 9)], 2: [(0, 0), (0, 2), (0, 2)]}


def rows(total: int, width: int = 2) -> torch.Tensor:
    return torch.arange(total * width, dtype=torch.float64).reshape(total, width) + 1


def exchanges(world: World) -> dict[Any, Any]:
    """Everything that a world can do, by name."""
    found: dict[Any, Any] = {}
    for total in TOTALS:
        start, stop = world.share(total)
        local = rows(total)[start:stop].requires_grad_()
        everything = world.gather(local, total)
        ((world.rank + 1) * everything**2).sum().backward()  # each process weighs the rows in its own way
        found["gather", total], found["gradient", total] = everything.detach(), local.grad
        constant = world.gather(local, total, gradient=False)
        found["constant", total] = constant.requires_grad
        found["labels", total] = world.gather(torch.arange(start, stop), total)
        with torch.no_grad():
            found["no_grad", total] = world.gather(local, total).requires_grad
    for total, windows in WINDOWS.items():
        start, stop = world.share(total)
        seen = world.collect(rows(total)[start:stop], total, windows)
        found["window", total] = seen
        found["returned", total] = world.give_back(seen * (world.rank + 1), total, windows)
    one = torch.tensor([1.0, -world.rank])
    found["sum"], found["max"] = world.sum(one), world.max(one)
    found["kept"] = one
    found["broadcast"] = world.broadcast(torch.tensor([world.rank + 5]), source=1)
    here = torch.tensor([float(world.rank)])
    found["shift"] = world.shift((here, 1), (10 * here, -1))()
    world.barrier()
    try:
        world.gather(rows(1), 100)
    except ValueError as error:
        found["wrong"] = str(error)
    return found


def frozen_elsewhere(world: World) -> torch.Tensor | None:
    """Only process 0's rows want a gradient: the backward pass of all must still take part."""
    start, stop = world.share(6)
    local = rows(6)[start:stop].requires_grad_(world.rank == 0)
    world.gather(local, 6).sum().backward()
    return local.grad


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    with joined(rank, SIZE, f"file://{folder}/meet", timeout_s=20) as world:
        found = exchanges(world)
        found["frozen elsewhere"] = frozen_elsewhere(world)
        torch.save(found, folder / f"{rank}.pt")
        world.barrier()
        if rank == 2:
            os._exit(9)  # dies without a word
        try:
            world.sum(torch.ones(1000))
        except PeerLost as error:
            (folder / f"{rank}.lost").write_text(str(error))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    started = [subprocess.Popen([sys.executable, __file__, str(rank), str(folder)]) for rank in range(SIZE)]
    codes = [process.wait(100) for process in started]
    assert codes[2] == 9
    return folder


@pytest.fixture(scope="module")
def found(folder) -> list[dict[Any, Any]]:
    return [torch.load(folder / f"{rank}.pt") for rank in range(SIZE)]


@pytest.mark.parametrize("total", TOTALS)
def test_gather(found, total):
    for rank, mine in enumerate(found):
        start, stop = share(total, rank, SIZE)
        assert torch.equal(mine["gather", total], rows(total))
        assert torch.equal(mine["labels", total], torch.arange(total))
        # d/dx of (1 + 2 + 3) x^2: what all processes say about this one's rows
        assert torch.equal(mine["gradient", total], 12 * rows(total)[start:stop])
        assert not mine["constant", total]
        assert not mine["no_grad", total]


@pytest.mark.parametrize("total", WINDOWS)
def test_windows(found, total):
    weights = torch.zeros(total, 1, dtype=torch.float64)
    for rank, (start, stop) in enumerate(WINDOWS[total]):
        weights[start:stop] += rank + 1
    for rank, mine in enumerate(found):
        assert torch.equal(mine["window", total], rows(total)[slice(*WINDOWS[total][rank])])
        assert torch.equal(mine["returned", total], (weights * rows(total))[slice(*share(total, rank, SIZE))])


def test_sums_and_messages(found):
    for rank, mine in enumerate(found):
        assert mine["sum"].tolist() == [3.0, -3.0]
        assert mine["max"].tolist() == [1.0, 0.0]
        assert mine["kept"].tolist() == [1.0, -rank]
        assert mine["broadcast"].tolist() == [6]
        before, after = (rank - 1) % SIZE, (rank + 1) % SIZE
        assert [x.item() for x in mine["shift"]] == [before, 10 * after]
        assert mine["wrong"].startswith(f"process {rank} has 1 rows")


def test_a_process_whose_rows_are_frozen_takes_part(found):
    assert found[0]["frozen elsewhere"].tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert found[1]["frozen elsewhere"] is None


def test_a_dead_process_is_an_error(folder):
    for rank in (0, 1):
        assert f"process {rank} of 3 could not exchange with the others" in (folder / f"{rank}.lost").read_text()


def test_who_does_not_come_is_an_error(tmp_path):
    with pytest.raises(PeerLost, match="process 0 of 2"), joined(0, 2, f"file://{tmp_path}/meet", timeout_s=1):
        pass


def test_alone_nothing_is_exchanged():
    with joined(0, 1, "tcp://nowhere:1") as world:
        assert world is ALONE
        local = torch.ones(3, 2, requires_grad=True)
        assert world.gather(local, 3) is local
        assert not world.gather(local, 3, gradient=False).requires_grad
        assert world.sum(local).sum() == 6
        world.barrier()


def test_shares_cover_a_batch():
    for total in range(12):
        for size in range(1, 6):
            shares = World(0, size).shares(total)
            assert [x for start, stop in shares for x in range(start, stop)] == list(range(total))
            lengths = [stop - start for start, stop in shares]
            assert max(lengths) - min(lengths) <= 1


if __name__ == "__main__":
    worker(int(sys.argv[1]), Path(sys.argv[2]))
    os._exit(0)  # as our workers do: torch's threads may abort an interpreter that is shutting down
