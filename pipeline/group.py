"""A group: several processes that do one call together, and what happens in each of them.

Every process of the group runs the same function with the same arguments and its `Member`, after torch's default
process group has been joined: gloo between CPUs, NCCL between GPUs. What member 0 returns is the result; it alone
writes what is written once. A group is whole or it is not: when one process dies or raises, the others are ended, and
the call is tried again (a death) or has failed (an exception).

An exception tears the connections of the others, who then raise, too. So a process that raises first tells its
exception, and leaves the process group only when the whole group is ended; and exceptions about lost connections
explain nothing if there is another one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..errors import CurateError
from ..pretrain.stopping import Stopped
from .calls import Outcome

COLLECTIVE_S = 1800.0  # how long members wait for each other within a collective operation
CPU_BACKEND, GPU_BACKEND = "gloo", "nccl"
LOST_CONNECTION = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "socket closed",
    "nccl communicator was aborted",
    "remote process exited",
    "ncclremoteerror",
    "ncclsystemerror",
    "sendbytes failed",
    "recvvalue failed",
    "application timeout caused pair closure",
    "barrier timeout",
    "could not exchange with the others",  # `pretrain.processes.world.PeerLost`
)
"""What torch's errors say when another process of the group has gone."""


@dataclass(frozen=True)
class Member:
    """One process's place in a group.

    Attributes:
        rank: its number, from 0; 0 is the one that returns the result and writes.
        size: how many processes there are.
        local_rank: its number among those on its machine; GPUs are assigned before, so a process with one GPU sees
            only that, as device 0.
        rendezvous: where they find each other, as torch's ``init_method``; empty if they have been joined already.
        backend: of torch.distributed.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    rendezvous: str = ""
    backend: str = CPU_BACKEND


ALONE = Member()


def run_member(function: Callable[..., Any], arguments: tuple[Any, ...], member: Member) -> Any:
    """Join the group and run ``function(*arguments, member)``; only member 0's value is returned."""
    if member.rendezvous:
        join(member)
    value = function(*arguments, member)
    return value if member.rank == 0 else None


def join(member: Member) -> None:
    """Make torch's default process group; waits for all members."""
    import torch.distributed

    if member.rendezvous.startswith("file://") and sys.platform == "linux":  # all on this machine
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        member.backend,
        init_method=member.rendezvous,
        rank=member.rank,
        world_size=member.size,
        timeout=timedelta(seconds=COLLECTIVE_S),
    )


def lost_connection(error: BaseException) -> bool:
    """Whether an exception only says that another process of the group has gone."""
    text = str(error).lower()
    kinds = (RuntimeError, ConnectionError, CurateError)
    return isinstance(error, kinds) and any(sign in text for sign in LOST_CONNECTION)


def cause(outcomes: list[Outcome]) -> Outcome | None:
    """The failure that explains the others, of outcomes in the order in which they came; None if none does.

    None means that processes only say that they have lost others.
    """
    failed = [o for o in outcomes if o.error is not None and not lost_connection(o.error)]
    errors = [o for o in failed if not isinstance(o.error, Stopped)]
    return (errors or failed or [None])[0]
