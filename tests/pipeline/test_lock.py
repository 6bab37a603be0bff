"""One driver per workdir; a dead one holds nothing."""

import os
import subprocess
import sys

import pytest

from curate.errors import StorageError
from curate.pipeline.lock import WorkdirBusy, holder, locked

HOLD = """
import sys, time
from curate.pipeline.lock import locked
with locked(sys.argv[1], "other"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_driver_is_told_who_holds_the_workdir(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(WorkdirBusy, match=rf"in use by process {process.pid} .*'other'"),
            locked(str(tmp_path), "me"),
        ):
            pass
        assert "'other'" in holder(str(tmp_path))
    finally:
        process.kill()
        process.wait()
    assert holder(str(tmp_path)) is None
    with locked(str(tmp_path), "me"):
        assert holder(str(tmp_path)) is not None


def test_unwritable_workdir_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another workdir"), locked(str(tmp_path / "file" / "runs"), "me"):
        pass
    assert os.listdir(tmp_path) == ["file"]
