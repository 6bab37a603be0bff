"""The quickstart, cold and again: wall time, peak memory, and what each arm reached.

    python benchmarks/quickstart.py [--json] [--quick]

Runs the installed `curate` on `configs/quickstart.yaml` in an empty workdir, then once more. `--quick` runs a twentieth
of the size. With `--json` the last line printed is one JSON object: ``wall_s``, ``rerun_s``, ``peak_mb`` (sum of the
resident memory of the driver and all its children, sampled), ``stages`` (seconds of each) and per arm ``acc_mean`` and
``acc_ci95`` (zero-shot top-1 over seeds; half width of the t-interval, null for one seed).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
QUICK = [
    "pool.source.rows=240",
    "pool.source.trusted_rows=60",
    "encoders.dfn.train.data.rows=240",
    "encoders.dfn.train.data.trusted_rows=60",
    "encoders.dfn.train.samples_seen=1280",
    "pretrain.samples_seen=640",
    "pretrain.seeds=2",
]


def resident(pid: int) -> int:
    """Bytes resident in a process and all its descendants."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def timed_run(arguments: list[str], log: Path) -> tuple[float, int]:
    """Wall seconds and peak bytes of one `curate run`; raises when it fails."""
    command = [
        sys.executable,
        "-m",
        "curate.pipeline.cli",
        "run",
        str(ROOT / "configs" / "quickstart.yaml"),
        *arguments,
    ]
    started, peak = time.monotonic(), 0
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT)
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.25)
    if process.returncode:
        raise SystemExit(f"curate run failed ({process.returncode}):\n{log.read_text()}")
    return time.monotonic() - started, peak


def arms(workdir: Path) -> dict[str, dict[str, float | None]]:
    """Zero-shot accuracy of every arm, from the report's data."""
    report = json.loads((workdir / "quickstart" / "report" / "report.json").read_text())
    found = {}
    for arm in report["leaderboard"]["arms"]:
        score = arm["scores"]["zero_shot acc1"]
        half = None if score["low"] is None else (score["high"] - score["low"]) / 2
        found[arm["name"]] = {"acc_mean": round(score["mean"], 4), "acc_ci95": None if half is None else round(half, 4)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the size")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="curate-bench-") as folder:
        work = Path(folder)
        arguments = [f"workdir={work}/runs", *(QUICK if options.quick else [])]
        wall, peak = timed_run(arguments, work / "first.log")
        rerun, _ = timed_run(arguments, work / "again.log")
        figures = {
            "wall_s": round(wall, 1),
            "rerun_s": round(rerun, 2),
            "peak_mb": round(peak / 2**20),
            "cpus": os.cpu_count(),
            "arms": arms(work / "runs"),
        }
    print(f"quickstart {wall:.1f} s, again {rerun:.2f} s, peak {peak / 2**20:.0f} MB on {os.cpu_count()} CPUs")
    for name, arm in figures["arms"].items():
        half = "" if arm["acc_ci95"] is None else f" +- {100 * arm['acc_ci95']:.1f}"
        print(f"  {name:12} {100 * arm['acc_mean']:.1f} %{half}")
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
