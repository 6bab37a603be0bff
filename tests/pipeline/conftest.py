"""The small run that several tests look at, made once."""

from pathlib import Path

import pytest
from evaluation_run import measured_config
from small_run import curate, outputs, write_config


@pytest.fixture(scope="session")
def reference_run(tmp_path_factory) -> tuple[str, Path, dict[str, str]]:
    """The small config, run undisturbed in one process: (config path, workdir, digest of every output)."""
    folder = tmp_path_factory.mktemp("reference")
    config = write_config(folder)
    done = curate("run", config)
    assert done.returncode == 0, done.stderr
    return config, folder / "runs", outputs(folder / "runs")


@pytest.fixture(scope="session")
def measured(tmp_path_factory) -> Path:
    """Folder of a run of two subsets, two seeds, nine suites, eight sets; what it printed is in ``said``."""
    folder = tmp_path_factory.mktemp("measured")
    done = curate("run", measured_config(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said").write_text(done.stdout)
    return folder
