"""A driver of its own process for tests: one stage that trains an integer in a group of processes.

``python group_run.py FOLDER ADDRESS PROCESSES STEPS [SAVE_EVERY]`` exits as the command line does. The training adds,
at each step, the sum of all ranks + 1 to a number, and saves (step, number) in its scratch folder; with SAVE_EVERY 0 it
never saves, and does not stop when it is asked to. Steps take time until `hurry` is called.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from curate.errors import CurateError
from curate.pipeline.calls import Resources
from curate.pipeline.config import ClusterConfig
from curate.pipeline.plan import Plan
from curate.pipeline.progress import Progress
from curate.pipeline.runner import Runner
from curate.pipeline.stage import Stage, Task, Work
from curate.pretrain.stopping import Stopped, StopRequest
from curate.shards import storage

STEP_S = 0.02


def state_of(folder: Path) -> dict[str, int]:
    """The saved state of the fake training of a run in `folder`; step 0 if there is none."""
    found = list(folder.glob("artifacts/fake-*/scratch/model/state.json"))
    return json.loads(found[0].read_text()) if found else {"step": 0, "number": 0, "saves": 0}


def number_of(folder: Path) -> int:
    """The result of a finished run."""
    return json.loads(next(folder.glob("artifacts/fake-*/data/model.json")).read_text())["number"]


def members_of(folder: Path) -> list[int]:
    """Process ids of the members that were started last."""
    return [int(path.read_text()) for path in sorted(folder.glob("artifacts/fake-*/scratch/model/member*.pid"))]


def hurry(folder: Path) -> None:
    """Let the steps that are left take no time."""
    next(folder.glob("artifacts/fake-*/scratch/model")).joinpath("hurry").touch()


def start(*arguments: object) -> subprocess.Popen:
    """A driver."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(driver: subprocess.Popen, seconds: float = 200) -> tuple[int, str]:
    """Exit code and output of a driver that ends by itself."""
    said, _ = driver.communicate(timeout=seconds)
    return driver.returncode, said


def wait_for(true: Callable[[], bool], seconds: float = 100.0) -> None:
    """Until something has come true."""
    for _ in range(int(seconds / 0.05)):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def ended(*pids: int) -> bool:
    """Whether none of the processes runs any more."""
    import psutil

    return not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids)


def train(task: Task, steps: int, save_every: int) -> dict[str, Any]:
    """A training as the engines see it: shared steps, saved state, a clean stop."""
    import torch
    import torch.distributed

    rank, size = task.member.rank, task.member.size
    path, hurry = storage.join(task.scratch, "state.json"), storage.join(task.scratch, "hurry")
    state = storage.read_json(path) if storage.exists(path) else {"step": 0, "number": 0}
    began = state["step"]
    storage.write_bytes(storage.join(task.scratch, f"member{rank}.pid"), str(os.getpid()).encode())

    def save() -> None:
        if rank == 0:
            storage.write_json(path, state)

    with StopRequest(task.stopping, together=size > 1) as stop:
        while state["step"] < steps:
            ours = torch.tensor([rank + 1])
            if size > 1:
                torch.distributed.all_reduce(ours)
            state = {"step": state["step"] + 1, "number": state["number"] + int(ours.item())}
            if not storage.exists(hurry):
                time.sleep(STEP_S)
            task.progress(state["step"], steps)
            if save_every and state["step"] % save_every == 0:
                save()
            if stop.requested() and state["step"] < steps and save_every:
                save()
                raise Stopped(state["step"], steps)
    if rank == 0:
        storage.write_json(storage.join(task.out, "model.json"), {"number": state["number"]})
    return {"number": state["number"], "began": began}


@dataclass(eq=False)
class FakeTraining(Stage):
    """One part: a training."""

    kind: ClassVar[str] = "fake"
    processes: int = 1
    steps: int = 100
    save_every: int = 10

    def identity(self) -> dict[str, Any]:
        return {"processes": self.processes, "steps": self.steps}

    def run(self, work: Work) -> dict[str, Any]:
        return work.map(train, {"model": (self.steps, self.save_every)}, Resources(processes=self.processes))["model"]


def main() -> None:
    folder, address, processes, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    save_every = int(sys.argv[5]) if len(sys.argv) > 5 else 10
    stage = FakeTraining("fake", processes=processes, steps=steps, save_every=save_every)
    cluster = ClusterConfig(address=address, workers=2, attempts=3)
    try:
        with Progress("fake", ["fake"], None) as progress:
            Runner(Plan([stage]), f"{folder}/artifacts", cluster, progress).run()
    except CurateError as error:
        print(f"error: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    import cloudpickle
    import group_run  # workers find the module by this name

    cloudpickle.register_pickle_by_value(group_run)
    group_run.main()
