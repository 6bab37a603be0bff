"""Ray on one machine: a group outlives the death of a member; the end of Ray itself is told, not waited for."""

import os
import signal
import sys
import time

import cloudpickle
import psutil
import pytest

from curate.errors import CurateError
from curate.pipeline.calls import Call, Resources

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module by its name


def total_after_a_death(marker, base, member):
    import torch
    import torch.distributed

    if member.rank == 1 and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    value = torch.tensor([float(base + member.rank)])
    torch.distributed.all_reduce(value)
    return value.item(), member.rank, member.size


@pytest.mark.slow
@pytest.mark.timeout(600)  # Ray Train needs up to 40 s to start a group; this starts two
def test_a_group_loses_a_member_and_then_ray_its_raylet(tmp_path):
    from curate.pipeline.engine import RayEngine

    engine = RayEngine("local", workers=2)
    try:
        arguments = (str(tmp_path / "died"), 5)
        call = Call("training", total_after_a_death, arguments, Resources(processes=2), scratch=str(tmp_path / "ray"))
        outcome = engine.submit(call).result(timeout=500)
        assert (outcome.value, outcome.attempts, outcome.error) == ((11.0, 0, 2), 2, None)

        hanging = engine.submit(Call("part", time.sleep, (1000,)))
        waiting = engine.submit(Call("training", time.sleep, (1,), Resources(gpus=1, processes=2)))
        assert "needs 2 processes with 1 GPU each, and the cluster has" in str(waiting.result(timeout=60).error)
        raylet = next(p for p in psutil.Process().children() if p.name() == "raylet")
        raylet.kill()
        error = hanging.result(timeout=60).error
        assert isinstance(error, CurateError)
        assert "Ray on this machine has broken down" in str(error)
        later = engine.submit(Call("part", time.sleep, (0,))).result(timeout=60)
        assert "broken down" in str(later.error)
    finally:
        engine.close()
