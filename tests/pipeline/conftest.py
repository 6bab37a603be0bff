"""The small run that several tests look at, made once."""

from pathlib import Path

import pytest
from small_run import curate, outputs, write_config


@pytest.fixture(scope="session")
def reference_run(tmp_path_factory) -> tuple[str, Path, dict[str, str]]:
    """The small config, run undisturbed in one process: (config path, workdir, digest of every output)."""
    folder = tmp_path_factory.mktemp("reference")
    config = write_config(folder)
    done = curate("run", config)
    assert done.returncode == 0, done.stderr
    return config, folder / "runs", outputs(folder / "runs")
