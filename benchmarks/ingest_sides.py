"""The two sides of the ingest benchmark: `curate run --until pool` and img2dataset, with the same job.

A `Job` is a table of URLs and how to work on it. `measure` runs one side's command on it in a process tree of its own
(`cpu_tree`) and reads from what it wrote how long it really worked: both sides leave one ``_stats.json`` per shard with
its start and end. A run in which an image failed is not a measurement, and ends the benchmark.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

HERE = Path(__file__).resolve().parent
Side = Literal["curate", "img2dataset"]
WARM_UP = 24  # rows of the runs that only fill caches


@dataclass(frozen=True)
class Job:
    """What both sides do.

    Attributes:
        urls: parquet with the columns ``url`` and ``text``.
        rows: rows in it.
        per_shard: rows per shard.
        workers: worker processes.
        in_flight: requests at once in each of them.
        authority: file of the certificates that are trusted, the usual ones and the server's.
    """

    urls: Path
    rows: int
    per_shard: int
    workers: int
    in_flight: int
    authority: str


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        shards: folder of its shards.
        cpu: seconds of user and system time of the whole process tree.
        wall: seconds from start to end.
        span: seconds from the start of the first shard to the end of the last.
        server_cpu: seconds that the server took meanwhile (counted for nobody).
        peak: bytes resident in the largest process.
    """

    shards: Path
    rows: int
    cpu: float
    user: float
    wall: float
    span: float
    server_cpu: float
    peak: int

    def figures(self) -> dict[str, float]:
        return {
            "cpu_ms_per_image": round(1000 * self.cpu / self.rows, 3),
            "user_share": round(self.user / self.cpu, 3),
            "wall_s": round(self.wall, 2),
            "images_per_s": round(self.rows / self.wall, 1),
            "steady_images_per_s": round(self.rows / self.span, 1),
            "server_cpu_ms_per_image": round(1000 * self.server_cpu / self.rows, 3),
            "peak_mb": round(self.peak / 2**20),
        }


class Server:
    """`serve.py` in a process of its own; a context manager."""

    def __init__(self, images: Path, close: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="curate-bench-server-")
        ports = Path(self._folder.name) / "ports.json"
        command = [sys.executable, str(HERE / "serve.py"), str(images), str(ports), *(["--close"] if close else [])]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while not ports.exists():
            if self._process.poll() is not None:
                raise SystemExit("the server of the benchmark did not start")
            time.sleep(0.05)
        told = json.loads(ports.read_text())
        self.ports = {scheme: told[scheme] for scheme in ("http", "https")}
        self.authority: str = told["authority"]

    def cpu(self) -> float:
        """CPU seconds that it has used so far."""
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self.counts = json.loads((self._process.communicate(timeout=10)[0] or "{}").strip() or "{}")
        self._folder.cleanup()


def write_urls(path: Path, scheme: str, port: int, rows: int, images: int) -> None:
    """The table of a job: `rows` distinct URLs, each image under as many as it takes."""
    urls = [f"{scheme}://127.0.0.1:{port}/{row // images}/{row % images}.jpg" for row in range(rows)]
    texts = [f"A photograph of scene {row % 97} in the evening light, number {row}" for row in range(rows)]
    pq.write_table(pa.table({"url": urls, "text": texts}), path)


def _ours(job: Job, folder: Path) -> tuple[list[str], Path]:
    """Command, and a pattern that finds its shards."""
    config = {
        "name": "ingest",
        "workdir": str(folder / "runs"),
        "pool": {
            "source": {"type": "urls", "path": str(job.urls)},
            "image": {"size": 256, "resize": "keep_ratio", "encode": "jpg", "quality": 95, "only_if_bigger": False},
            "fetch": {"concurrency": job.in_flight, "per_host": job.in_flight, "allow_private": True},
            "samples_per_shard": job.per_shard,
        },
        "cluster": {"address": "processes", "workers": job.workers},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    command = [sys.executable, "-m", "curate.pipeline.cli", "run", str(path), "--until", "pool"]
    return command, folder / "runs" / "artifacts"


def _theirs(job: Job, folder: Path, python: Path) -> tuple[list[str], Path]:
    options = {
        "url_list": job.urls,
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "text",
        "output_format": "webdataset",
        "output_folder": folder / "out",
        "processes_count": job.workers,
        "thread_count": job.in_flight,
        "number_sample_per_shard": job.per_shard,
        "image_size": 256,
        "resize_mode": "keep_ratio",
        "encode_format": "jpg",
        "encode_quality": 95,
        "compute_hash": "sha256",
        "extract_exif": True,
        "retries": 2,
        "timeout": 10,
        "enable_wandb": False,
    }
    command = [str(python.parent / "img2dataset"), *(f"--{name}={value}" for name, value in options.items())]
    return command, folder / "out"


def measure(side: Side, job: Job, folder: Path, server: Server, python: Path) -> Measured:
    """Run one side in a new `folder`.

    Raises:
        SystemExit: the command failed, or an image did.
    """
    folder.mkdir(parents=True)
    command, place = _ours(job, folder) if side == "curate" else _theirs(job, folder, python)
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("CURL_CA_BUNDLE", "SSL_CERT_DIR")},
        "SSL_CERT_FILE": job.authority,
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "WANDB_MODE": "disabled",
        "PYTHONWARNINGS": "ignore",
    }
    log, result = folder / "log.txt", folder / "cpu.json"
    before = server.cpu()
    with open(log, "w") as output:
        supervisor = [sys.executable, "-S", "-E", str(HERE / "cpu_tree.py"), str(result), *command]
        subprocess.run(supervisor, stdout=output, stderr=output, env=environment, check=True, cwd=folder)
    told = json.loads(result.read_text())
    server_cpu = server.cpu() - before
    stats = [json.loads(path.read_text()) for path in place.rglob("*_stats.json")]
    done = sum(s["successes"] for s in stats)
    if told["code"] or done != job.rows:
        tail = log.read_text()[-3000:]
        statuses: dict[str, Any] = {k: v for s in stats for k, v in s["status_dict"].items()}
        raise SystemExit(f"{side}: exit {told['code']}, {done} of {job.rows} images, {statuses}\n{tail}")
    span = max(s["end_time"] for s in stats) - min(s["start_time"] for s in stats)
    shards = next(iter(place.rglob("*_stats.json"))).parent
    cpu = told["user"] + told["system"]
    return Measured(shards, job.rows, cpu, told["user"], told["wall"], span, server_cpu, told["peak_bytes"])
