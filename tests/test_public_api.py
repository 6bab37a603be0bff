"""The package's front door: names are there, and nothing heavy is loaded before it is used."""

import subprocess
import sys
from pathlib import Path

import curate


def test_every_public_name_can_be_imported():
    for name in curate.__all__:
        assert getattr(curate, name).__name__ == name


def test_planning_loads_no_torch_and_no_ray():
    script = (
        "import sys, curate, curate.pipeline.plan; print([m for m in ('torch', 'ray', 'faiss') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_the_engine_imports_ray():
    root = Path(curate.__file__).parent
    rooms = ("shards", "pretrain", "filters", "eval", "pipeline")
    users = {
        str(path.relative_to(root))
        for room in rooms
        for path in (root / room).rglob("*.py")
        if any(line.strip().startswith(("import ray", "from ray")) for line in path.read_text().splitlines())
    }
    assert users == {"pipeline/engine.py", "pipeline/ray_train.py"}


def test_lower_floors_never_import_higher_ones():
    root = Path(curate.__file__).parent
    floors = ["shards", "pretrain", "filters", "eval", "pipeline"]
    for i, room in enumerate(floors):
        for path in (root / room).rglob("*.py"):
            depth = len(path.relative_to(root).parts)
            for line in path.read_text().splitlines():
                for higher in floors[i + 1 :]:
                    assert not line.strip().startswith(f"from {'.' * depth}{higher}"), f"{path}: {line}"
