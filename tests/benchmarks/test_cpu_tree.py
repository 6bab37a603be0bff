"""CPU time of a process tree: what was killed, and what outlived its parent, is counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cpu_tree.py"

BURN = """
import os, signal, subprocess, sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
burn(0.2)
"""


def cpu(tmp_path: Path, code: str) -> dict[str, float]:
    result = tmp_path / "result.json"
    command = [sys.executable, str(SCRIPT), str(result), sys.executable, "-S", "-E", "-c", BURN + code]
    subprocess.run(command, check=True, timeout=60)
    told = json.loads(result.read_text())
    return {**told, "cpu": told["user"] + told["system"]}


@pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")
@pytest.mark.parametrize(
    ("code", "seconds"),
    [
        ("sys.exit(3)", 0.2),
        # a child that is killed
        ("child = os.fork()\nif not child: burn(0.3); os.kill(os.getpid(), 9)\nos.waitpid(child, 0)", 0.5),
        # a grandchild whose parent dies at once, and which outlives the command
        (
            "if not os.fork():\n  os.setsid()\n  if os.fork(): os._exit(0)\n  time.sleep(0.3); burn(0.3); os._exit(0)",
            0.5,
        ),
        # a child that nobody waits for
        ("if not os.fork(): burn(0.3); os._exit(0)\ntime.sleep(0.6)", 0.5),
    ],
)
def test_counts_the_whole_tree(tmp_path: Path, code: str, seconds: float) -> None:
    told = cpu(tmp_path, code)
    assert told["code"] == (3 if "exit(3)" in code else 0)
    assert seconds <= told["cpu"] < seconds + 0.2  # and the interpreter's start
