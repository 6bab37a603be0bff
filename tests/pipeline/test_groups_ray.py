"""A local Ray that breaks down ends its calls with a sentence, instead of letting them wait for ever."""

import time

import psutil
import pytest

from curate.errors import CurateError
from curate.pipeline.calls import Call, Resources


@pytest.mark.slow
def test_the_end_of_the_raylet_is_told():
    from curate.pipeline.engine import RayEngine

    engine = RayEngine("local", workers=1)
    try:
        hanging = engine.submit(Call("part", time.sleep, (100,)))
        waiting = engine.submit(Call("training", time.sleep, (1,), Resources(gpus=1, processes=2)))
        assert "needs 2 processes with 1 GPU each, and the cluster has" in str(waiting.result(timeout=30).error)
        raylet = next(p for p in psutil.Process().children() if p.name() == "raylet")
        raylet.kill()
        error = hanging.result(timeout=20).error
        assert isinstance(error, CurateError)
        assert "Ray on this machine has broken down" in str(error)
        later = engine.submit(Call("part", time.sleep, (0,))).result(timeout=20)
        assert "broken down" in str(later.error)
    finally:
        engine.close()
