"""The small run that several tests look at, made once."""

import subprocess
from pathlib import Path

import pytest
from small_run import curate, write_config


@pytest.fixture(scope="session")
def reference_run(tmp_path_factory) -> tuple[str, Path, subprocess.CompletedProcess]:
    """The small config, run undisturbed in one process: (config path, workdir, what it printed)."""
    folder = tmp_path_factory.mktemp("reference")
    config = write_config(folder)
    done = curate("run", config)
    assert done.returncode == 0, done.stderr
    return config, folder / "runs", done
