"""Ingest, side by side with img2dataset: CPU per image, steady rate and quality, over http and https.

    python benchmarks/ingest.py [--json] [--images 2000] [--images 10000] [--http] [--https] [--quick]

Both sides fetch the same images from the same loopback server (`serve.py`) with the same settings: keep_ratio 256, jpg
of quality 95, WebDataset shards, SHA-256 and EXIF, 2 worker processes with 32 requests in flight each. Ours is the
command `curate run --until pool`, theirs is img2dataset 1.47.0 in an environment of its own; they take turns, a run of
a few images before warms up both. Both cut 500 rows per shard. img2dataset replaces each process after five shards, so
at 10,000 images it pays for two generations of processes; ``--per-shard 1000`` spares it the second.

What is counted: CPU is user + system of the whole process tree, start-up included, the server's not; the ratio is the
median over pairs of runs. Steady images per second are rows / (end of the last shard - start of the first), from the
``_stats.json`` files that both write. Connections: urllib asks for a new one per image and gets it, libcurl keeps its
own alive; ``--close`` makes the server end every connection, whoever asks. Over https both verify the server, and get
the system's bundle of authorities with ours added, through SSL_CERT_FILE.

With ``--json`` the last line is one JSON object: ``cpu_ratio_http``, ``cpu_ratio_https`` (our CPU per image / its, at
the largest size measured), ``steady_ratio`` (our images per second / its, http, largest size), ``psnr_gain_db``, and
all raw figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import ingest_floor
import peers
import photographs
from ingest_quality import quality
from ingest_sides import WARM_UP, Job, Measured, Server, Side, measure, write_urls

IMAGES = 2000  # distinct ones; larger jobs give each several URLs
TARGETS = {"cpu_ratio_http": 0.45, "cpu_ratio_https": 0.12, "steady_ratio": 1.8, "psnr_gain_db": 0.0}


def compare(job: Job, pairs: int, server: Server, python: Path, folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """`pairs` runs of each side in turns; figures, and the shards of the last run of each side."""
    runs: dict[Side, list[Measured]] = {"curate": [], "img2dataset": []}
    loads = []
    for pair in range(pairs):
        for side, done in runs.items():
            shutil.rmtree(folder / f"{side}-{pair - 1}", ignore_errors=True)
            loads.append(os.getloadavg()[0])
            done.append(measure(side, job, folder / f"{side}-{pair}", server, python))
    ours, theirs = runs["curate"], runs["img2dataset"]
    both = list(zip(ours, theirs, strict=True))
    figures: dict[str, Any] = {
        "rows": job.rows,
        "per_shard": job.per_shard,
        "in_flight": job.in_flight,
        "workers": job.workers,
        "pairs": pairs,
        "load_before": [round(load, 2) for load in loads],
        "cpu_ratio": round(median(a.cpu / b.cpu for a, b in both), 4),
        "cpu_ratios": [round(a.cpu / b.cpu, 4) for a, b in both],
        "wall_ratio": round(median(b.wall / a.wall for a, b in both), 3),
        "steady_ratio": round(median(b.span / a.span for a, b in both), 3),
    }
    for side, done in runs.items():
        each = [m.figures() for m in done]
        figures[side] = {name: round(median(e[name] for e in each), 3) for name in each[0]}
        figures[side]["runs"] = each
    return figures, [ours[-1].shards, theirs[-1].shards]


def show(title: str, figures: dict[str, Any]) -> None:
    """One comparison as lines of a table."""
    print(f"\n{title}: {figures['workers']} x {figures['in_flight']} in flight, {figures['per_shard']} rows per shard")
    print(f"  {figures['pairs']} pair(s), load before each run {figures['load_before']}")
    print(f"  {'':12}{'CPU ms/img':>12}{'img/s':>9}{'steady':>9}{'peak MB':>9}{'server ms':>11}")
    for side in ("curate", "img2dataset"):
        f = figures[side]
        rates = f"{f['images_per_s']:9.0f}{f['steady_images_per_s']:9.0f}{f['peak_mb']:9.0f}"
        print(f"  {side:12}{f['cpu_ms_per_image']:12.2f}{rates}{f['server_cpu_ms_per_image']:11.3f}")
    print(f"  CPU {figures['cpu_ratio']:.3f}x, ", end="")
    print(f"whole run {figures['wall_ratio']:.2f}x its images/s, steady {figures['steady_ratio']:.2f}x")


def options_of_command() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--images", type=int, action="append", help="rows of a job; may be given several times")
    parser.add_argument("--http", action="store_true", help="only http (or with --https, both)")
    parser.add_argument("--https", action="store_true", help="only https")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each side per job")
    parser.add_argument("--https-pairs", type=int, default=1, help="the same over https above 2,000 images (slow)")
    parser.add_argument("--in-flight", type=int, default=32, help="requests at once per worker")
    parser.add_argument("--per-shard", type=int, default=500, help="rows per shard")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--close", action="store_true", help="the server ends every connection")
    parser.add_argument("--no-floor", action="store_true", help="leave out where our CPU goes")
    parser.add_argument("--quick", action="store_true", help="one pair: 2,000 images over http, 400 over https")
    parser.add_argument("--cache", help="folder for environments and images (default: the user's cache)")
    options = parser.parse_args()
    options.schemes = [s for s in ("http", "https") if getattr(options, s)] or ["http", "https"]
    options.images = sorted(options.images or ([2000] if options.quick else [2000, 10_000]))
    return options


def main() -> None:
    options = options_of_command()
    python = peers.venv("img2dataset", peers.IMG2DATASET, options.cache, below=(3, 13))
    stored = photographs.photographs(IMAGES, peers.cache(options.cache))
    originals = photographs.load(stored)
    result: dict[str, Any] = dict.fromkeys(TARGETS)
    result |= {"cpus": os.cpu_count(), "mix": photographs.mix(originals), "runs": {}}
    print("images:", ", ".join(f"{name} {value}" for name, value in result["mix"].items()))
    with tempfile.TemporaryDirectory(prefix="curate-bench-") as place, Server(stored, options.close) as server:
        folder = Path(place)
        last: list[Path] = []
        for scheme in options.schemes:
            for rows in options.images:
                rows = min(rows, 400) if options.quick and scheme == "https" else rows
                urls = folder / f"{scheme}-{rows}.parquet"
                write_urls(urls, scheme, server.ports[scheme], rows, IMAGES)
                per_shard = min(options.per_shard, max(1, rows // options.workers))
                job = Job(urls, rows, per_shard, options.workers, options.in_flight, server.authority)
                if not result["runs"]:
                    warm = replace(job, urls=folder / "warm.parquet", rows=WARM_UP, per_shard=WARM_UP // 2)
                    write_urls(warm.urls, scheme, server.ports[scheme], WARM_UP, IMAGES)
                    compare(warm, 1, server, python, folder / "warm")
                few = options.quick or (scheme == "https" and rows > 2000)
                pairs = 1 if options.quick else options.https_pairs if few else options.pairs
                figures, shards = compare(job, pairs, server, python, folder / f"{scheme}-{rows}")
                result["runs"][f"{scheme}-{rows}"] = figures
                show(f"{rows} images over {scheme}", figures)
                result[f"cpu_ratio_{scheme}"] = figures["cpu_ratio"]
                if scheme == options.schemes[0]:
                    last = shards
                if scheme == "http":
                    result["steady_ratio"] = figures["steady_ratio"]
        result["psnr"] = quality(*last, originals, 200 if options.quick else 500)
        result["psnr_gain_db"] = result["psnr"]["gain_mean_db"]
        print("\nPSNR of what is stored:", ", ".join(f"{name} {value}" for name, value in result["psnr"].items()))
        if not options.no_floor:
            result["floor"] = ingest_floor.table(server, stored, folder / "floor", options.in_flight)
    print("\ntargets:")
    for name, target in TARGETS.items():
        good = result[name] is not None and (result[name] <= target if "cpu" in name else result[name] >= target)
        word = "-" if result[name] is None else "met" if good else "MISSED"
        print(f"  {name:16}{result[name] if result[name] is not None else 'not measured':>14}  target {target}  {word}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
