"""The processes that train one model together: who has which samples of a batch, and how they exchange features.

A batch is the same whatever the number of processes: each takes its run of consecutive samples (`share`), and every
objective returns its part of the whole batch's loss. The sum over processes, and of their gradients, is what one
process alone would get. Alone, nothing here communicates and torch.distributed need not be there.

Shares need not be equal and may be empty. A process says which run of the batch it wants to see (a `Window`), and only
that travels: everything by an all-gather padded to the largest share, less by sends of just those rows. An exchange
that fails, because a process died or kept the others waiting too long, is a `PeerLost`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ...errors import CurateError

Window = tuple[int, int]  # first sample of the batch and the one after the last


class PeerLost(CurateError):
    """An exchange between the processes of a training failed."""


def share(total: int, rank: int, size: int) -> Window:
    """First sample and the one after the last that process `rank` of `size` has of a batch of `total`.

    Shares differ by one sample at most; with fewer samples than processes some are empty.
    """
    return total * rank // size, total * (rank + 1) // size


@dataclass(frozen=True)
class World:
    """This process's place among those that train together.

    Every method but `share` is an exchange: all processes must call it, in the same order, with the same shapes.

    Attributes:
        rank: its number, from 0; process 0 writes what is written once.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def share(self, total: int) -> Window:
        """This process's part of a batch of `total` samples."""
        return share(total, self.rank, self.size)

    def shares(self, total: int) -> list[Window]:
        """Every process's part of a batch of `total` samples."""
        return [share(total, rank, self.size) for rank in range(self.size)]

    def gather(self, local: torch.Tensor, total: int, gradient: bool = True) -> torch.Tensor:
        """Rows of all processes, ``(total, ...)``, in the batch's order; gradients flow back to where rows came from.

        The gradient of a row is the sum of what all processes say about it, so the backward pass is an exchange too:
        every process must run it, those without samples included.

        Args:
            local: this process's rows ``(b, ...)``, as many as its `share` of `total`.
            gradient: False for constants: nothing flows back.
        """
        if self.size == 1:
            return local if gradient else local.detach()
        self._expect(local, total)
        if not gradient or not torch.is_grad_enabled() or not local.is_floating_point():
            return self.collect(local.detach(), total)
        if not local.requires_grad:  # another process's may, and its backward pass waits for this one's
            local = local.detach().requires_grad_()
        return _Gather.apply(local, total, self)  # type: ignore[return-value]

    def collect(self, local: torch.Tensor, total: int, windows: Sequence[Window] | None = None) -> torch.Tensor:
        """The rows of this process's window, wherever they are; without gradient.

        Args:
            local: this process's rows ``(b, ...)`` of a batch of `total`.
            windows: what every process wants to see, by rank; None = everything. A window holds its process's share.
        """
        shares = self.shares(total)
        local = local.detach()
        if self.size == 1 or windows == shares:
            return local
        local = local.contiguous()
        with self._exchange():
            if windows is None or all(window == (0, total) for window in windows):
                most = max(stop - start for start, stop in shares)
                padded = local
                if len(local) < most:
                    padded = local.new_zeros((most, *local.shape[1:]))
                    padded[: len(local)] = local
                everything = local.new_empty((self.size * most, *local.shape[1:]))
                dist.all_gather_into_tensor(everything, padded)
                return _without_padding(everything, shares, most)
            give, take = self._crossings(windows, shares)
            mine = shares[self.rank][0]
            outgoing = torch.cat([local[start - mine : stop - mine] for start, stop in give])
            incoming = local.new_empty((sum(stop - start for start, stop in take), *local.shape[1:]))
            dist.all_to_all_single(incoming, outgoing, _lengths(take), _lengths(give))
            return incoming  # shares are in the batch's order, and so are what was taken of them

    def give_back(self, seen: torch.Tensor, total: int, windows: Sequence[Window] | None = None) -> torch.Tensor:
        """Each row's sum over all processes that see it, at its owner: the reverse of `collect`.

        Args:
            seen: something, say a gradient, for every row of this process's window, ``(window, ...)``.
            windows: as for `collect`.

        Returns:
            ``(b, ...)``, of this process's own rows.
        """
        shares = self.shares(total)
        if self.size == 1 or windows == shares:
            return seen
        start, stop = shares[self.rank]
        with self._exchange():
            if windows is None or all(window == (0, total) for window in windows):
                if dist.get_backend() != "nccl":  # gloo has no reduce-scatter of its own
                    seen = seen.clone(memory_format=torch.contiguous_format)
                    dist.all_reduce(seen)
                    return seen[start:stop]
                most = max(last - first for first, last in shares)
                padded = _with_padding(seen, shares, most)
                own = seen.new_empty((most, *seen.shape[1:]))
                dist.reduce_scatter_tensor(own, padded)
                return own[: stop - start]
            take, give = self._crossings(windows, shares)  # what was taken goes back
            first = windows[self.rank][0]
            outgoing = torch.cat([seen[a - first : b - first] for a, b in give])
            incoming = seen.new_empty((sum(_lengths(take)), *seen.shape[1:]))
            dist.all_to_all_single(incoming, outgoing, _lengths(take), _lengths(give))
        own = seen.new_zeros((stop - start, *seen.shape[1:]))
        for (a, b), part in zip(take, incoming.split(_lengths(take)), strict=True):
            own[a - start : b - start] += part
        return own

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over processes, the same everywhere; without gradient."""
        return self._reduced(tensor, dist.ReduceOp.SUM)

    def max(self, tensor: torch.Tensor) -> torch.Tensor:
        """Elementwise maximum over processes, the same everywhere; without gradient."""
        return self._reduced(tensor, dist.ReduceOp.MAX)

    def broadcast(self, tensor: torch.Tensor, source: int = 0) -> torch.Tensor:
        """What process `source` has, everywhere; written into `tensor`, which is returned."""
        if self.size > 1:
            with self._exchange():
                dist.broadcast(tensor, source)
        return tensor

    def barrier(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            with self._exchange():
                dist.barrier()

    def shift(self, *messages: tuple[torch.Tensor, int]) -> Callable[[], list[torch.Tensor]]:
        """Start to pass tensors on around the ring of processes.

        Args:
            messages: each a tensor and how many places on it goes (1 = to the next process, -1 = to the one before).
                The same shapes and places on every process.

        Returns:
            A function that waits and gives what arrived, in the same order: tensors of the same shapes.
        """
        arriving = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor, _ in messages]
        with self._exchange():
            operations = [  # in one order everywhere: with two processes both directions lead to the same peer
                dist.P2POp(dist.isend, tensor.contiguous(), (self.rank + places) % self.size, tag=tag)
                for tag, (tensor, places) in enumerate(messages)
            ]
            operations += [
                dist.P2POp(dist.irecv, into, (self.rank - places) % self.size, tag=tag)
                for tag, (into, (_, places)) in enumerate(zip(arriving, messages, strict=True))
            ]
            under_way = dist.batch_isend_irecv(operations)

        def wait() -> list[torch.Tensor]:
            with self._exchange():
                for operation in under_way:
                    operation.wait()
            operations.clear()  # until here they keep what is being sent alive
            return arriving

        return wait

    def _reduced(self, tensor: torch.Tensor, how: Any) -> torch.Tensor:
        result = tensor.detach().clone()
        if self.size > 1:
            with self._exchange():
                dist.all_reduce(result, how)
        return result

    def _crossings(self, windows: Sequence[Window], shares: list[Window]) -> tuple[list[Window], list[Window]]:
        """Of every process: which of this one's samples it wants, and which of its samples this one wants."""
        mine, want = shares[self.rank], windows[self.rank]
        return [_common(mine, window) for window in windows], [_common(part, want) for part in shares]

    def _expect(self, local: torch.Tensor, total: int) -> None:
        start, stop = self.share(total)
        if len(local) != stop - start:
            raise ValueError(f"process {self.rank} has {len(local)} rows; its share of {total} is {stop - start}")

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Turns the failure of an exchange into an error with a sentence."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise PeerLost(
                f"process {self.rank} of {self.size} could not exchange with the others: one of them died, or kept "
                f"them waiting for too long; run again to go on from the last checkpoint ({error})"
            ) from error


ALONE = World()


@contextmanager
def joined(
    rank: int,
    size: int,
    init_method: str,
    backend: str | None = None,
    timeout_s: float = 600.0,
    device: torch.device | None = None,
) -> Iterator[World]:
    """Be one of `size` processes while the context lasts; alone (`size` 1) no group is made.

    Args:
        rank: this process's number.
        init_method: where they meet: ``tcp://host:port``, ``file:///path``, or ``env://``.
        backend: None = nccl for a CUDA `device`, else gloo.
        timeout_s: how long one exchange may take; then it is an error, and with NCCL the end of the process. Must be
            longer than the slowest process needs to start and to fall behind.
        device: the GPU of this process; becomes the current one.

    Raises:
        PeerLost: the others did not come.
    """
    if size == 1:
        yield ALONE
        return
    world = World(rank, size)
    on_gpu = device is not None and device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    with world._exchange():
        dist.init_process_group(
            backend or ("nccl" if on_gpu else "gloo"),
            init_method=init_method,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout_s),
        )
    try:
        yield world
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: torch.Tensor, total: int, world: World) -> torch.Tensor:
        ctx.total, ctx.world = total, world
        return world.collect(local, total)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        return ctx.world.give_back(gradient, ctx.total), None, None


def _common(a: Window, b: Window) -> Window:
    start, stop = max(a[0], b[0]), min(a[1], b[1])
    return start, max(start, stop)


def _lengths(runs: list[Window]) -> list[int]:
    return [stop - start for start, stop in runs]


def _without_padding(everything: torch.Tensor, shares: list[Window], most: int) -> torch.Tensor:
    if all(length == most for length in _lengths(shares)):
        return everything
    return torch.cat([part[:length] for part, length in zip(everything.split(most), _lengths(shares), strict=True)])


def _with_padding(rows: torch.Tensor, shares: list[Window], most: int) -> torch.Tensor:
    if all(length == most for length in _lengths(shares)):
        return rows.contiguous()
    padded = rows.new_zeros((len(shares) * most, *rows.shape[1:]))
    for rank, (start, stop) in enumerate(shares):
        padded[rank * most : rank * most + stop - start] = rows[start:stop]
    return padded
