"""A group of processes on Ray, through Ray Train: it places them on the nodes, makes torch's process group, ends them.

Ray Train knows nothing of what they do: state is saved and found by the call itself, in its scratch folder, which all
nodes must see (the run's workdir on shared storage). So no checkpoint passes through Ray Train, and when a group fails
it is not restarted by Ray Train, but by the engine, like any call.

Price: 18 to 43 s from the call to its first line on two cores, against 4 s for processes of one machine without Ray;
groups of one process are ordinary calls. Members take a thousandth of a CPU each, which is always free, because workers
leave a hundredth of each CPU: a group never waits for idle workers, and shares the cores with busy ones.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import tempfile
import threading
import time
import uuid
from typing import Any

import cloudpickle
import ray
from ray.exceptions import RayError

from .calls import Call, Outcome, execute
from .group import COLLECTIVE_S, CPU_BACKEND, GPU_BACKEND, Member, cause, run_member
from .worker_host import packed

MEMBER_CPUS = 0.001
WATCH_S = 0.5
LEAVE_S = 10.0  # for the others to end when member 0 has its result
SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon the end of a group is seen
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in a config may be relative
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


class _Mailbox:
    """The actor that members tell how they end; it also knows how to reach them."""

    def __init__(self) -> None:
        self._members: dict[int, Any] = {}
        self._ends: list[tuple[int, bytes]] = []

    def enter(self, rank: int, actor: Any) -> None:
        self._members[rank] = actor

    def tell(self, rank: int, outcome: bytes) -> None:
        self._ends.append((rank, outcome))

    def read(self) -> tuple[dict[int, Any], list[tuple[int, bytes]]]:
        return self._members, self._ends


def _run_in_member(work: dict[str, Any]) -> None:
    """What Ray Train runs in each process."""
    import ray.train

    context = ray.train.get_context()
    rank, mailbox = context.get_world_rank(), work["mailbox"]
    ray.get(mailbox.enter.remote(rank, ray.get_runtime_context().current_actor))
    function, arguments = pickle.loads(work["call"])
    member = Member(rank, context.get_world_size(), context.get_local_rank(), "", work["backend"])
    outcome = execute(run_member, (function, arguments, member))
    failed = outcome.error is not None
    ray.get(mailbox.tell.remote(rank, packed(outcome)))
    if failed:
        raise RuntimeError("the call has failed; its mailbox knows why")  # so that the others are ended


class GroupLost(Exception):
    """A member died or hung, or the group could not be started."""


def run_group(call: Call, timeout_s: float, local: bool) -> Outcome:
    """One attempt at a call of several processes; blocks until all have ended.

    Args:
        timeout_s: members that run longer are killed and count as hung; 0 = no limit.
        local: whether all of Ray is on this machine.

    Raises:
        GroupLost: the attempt says nothing about the call.
    """
    os.environ.update(SETTINGS)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    wanted = call.resources
    backend = GPU_BACKEND if wanted.gpus else CPU_BACKEND
    each: dict[str, float] = {"CPU": MEMBER_CPUS} | ({"GPU": wanted.gpus} if wanted.gpus else {})
    folder = f"{call.scratch}.ray" if call.scratch else tempfile.mkdtemp(prefix="curate-ray-")
    environment = {"OMP_NUM_THREADS": "1"}
    if local and sys.platform == "linux":
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    mailbox = ray.remote(_Mailbox).options(num_cpus=0).remote()
    trainer = TorchTrainer(
        _run_in_member,
        train_loop_config={
            "mailbox": mailbox,
            "call": cloudpickle.dumps((call.function, call.arguments)),
            "backend": backend,
        },
        torch_config=TorchConfig(backend=backend, timeout_s=int(COLLECTIVE_S)),
        scaling_config=ScalingConfig(
            num_workers=wanted.processes,
            use_gpu=bool(wanted.gpus),
            resources_per_worker=each,
            placement_strategy="PACK" if wanted.gpus else "SPREAD",
        ),
        run_config=RunConfig(
            name=uuid.uuid4().hex[:12],
            storage_path=os.path.abspath(folder),
            failure_config=FailureConfig(max_failures=0),
            worker_runtime_env={"env_vars": environment},
        ),
    )
    try:
        fitting = _Fitting(trainer)
        hung = _watch(fitting, mailbox, timeout_s)
        ends = [(rank, pickle.loads(data)) for rank, data in ray.get(mailbox.read.remote())[1]]
    except RayError as error:
        raise GroupLost(f"Ray: {type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _kill(mailbox)
    for rank, outcome in ends:
        if rank == 0 and outcome.error is None:
            return outcome
    if hung:
        raise GroupLost(f"it ran longer than {timeout_s:g} s")
    dead = fitting.dead()
    failure = cause([outcome for _, outcome in ends])
    if dead or failure is None:
        raise GroupLost(dead or f"its {wanted.processes} processes lost each other ({fitting.error})")
    return failure


class _Fitting(threading.Thread):
    """`TorchTrainer.fit` in a thread."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(name="curate-ray-train", daemon=True)
        self._trainer = trainer
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:  # noqa: BLE001  (Ray Train's own kinds, and whatever a dying Ray raises)
            self.error = error

    def dead(self) -> str:
        """Which process died, if Ray Train knows of one."""
        failures: dict[int, Exception] = getattr(self.error, "worker_failures", {})
        for rank, error in failures.items():
            if isinstance(error, RayError):
                return f"process {rank} died ({type(error).__name__})"
        return ""


def _watch(fitting: _Fitting, mailbox: Any, timeout_s: float) -> bool:
    """Wait for the end of the group; end it if it takes too long, and return whether it did."""
    began: float | None = None
    until: float | None = None
    hung = False
    while fitting.is_alive():
        fitting.join(WATCH_S)
        members, ends = ray.get(mailbox.read.remote())
        now = time.monotonic()
        if members and began is None:
            began = now
        if until is None and any(rank == 0 for rank, _ in ends):
            until = now + LEAVE_S
        hung = hung or bool(timeout_s and until is None and began is not None and now - began > timeout_s)
        if hung or (until is not None and now > until):
            for actor in members.values():
                _kill(actor)
    return hung


def _kill(actor: Any) -> None:
    try:
        ray.kill(actor)
    except (RayError, ValueError):  # it has gone already, or Ray has
        return
