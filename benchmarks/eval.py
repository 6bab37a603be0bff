"""Evaluation side by side with clip-benchmark 1.6.2: the same checkpoint, sets and numbers.

    python benchmarks/eval.py [--json] [--quick] [--model ViT-B-32] [--mix default datacomp]

Both sides are whole commands, from the start of a process to its exit, one after the other in turns, and read the same
files: one checkpoint (`eval_weights.py`) and the sets of a
mix (`eval_sets.py`), in the layout that clip-benchmark's own export writes. fp32, no autocast, CPU, `--threads` torch
threads on both sides. ``cpu_ratio`` and ``wall_ratio`` are ours / its, medians over rounds, CPU of the whole process
tree. ``max_metric_diff`` is the largest difference over all metrics that both have: acc1, acc5, mean_per_class_recall,
mAP, image and text recall@1, 5, 10.

How much is gained depends on how many texts there are per picture: a picture costs both sides the same forward, while
a prompt is cut to its length here and encoded once however many sets share it. So two mixes are measured: ``default``
(3.8 texts per picture: the sets that one runs on a CPU) and ``datacomp`` (0.46, all 40 tasks of DataComp); and
``by_ratio`` tells from the measured costs what any ratio gives. Sets are scaled down by ``factor``, which makes
start-up weigh more than it does in the world: ``full_size`` is the ratio with all but start and exit multiplied by it.

The model is ViT-B-32, which DataComp trains at its small and medium scales and the largest that one evaluates on CPUs;
``--model ViT-S-32`` is the smallest of open_clip's plain ones.

clip-benchmark's faults, and what is done about them without touching its numbers (its code runs as it is installed):

* its accuracy fails with numpy >= 2.4, so its environment has numpy 2.3.5;
* with more loader processes than shards (its default is 4, and every set here is one shard, as all are up to 10,000
  pictures) webdataset finds no samples: it runs with 0 and with 1 in the first round, and the faster is kept;
* autocast is on by default and on a CPU eleven times slower: ``--no_amp`` (ours has none);
* recall@k fails where there are fewer than k pictures: no set is that small;
* acc5 is a bare NaN below 5 classes, where ours is null: no set has so few;
* whether a set is retrieval it tells by names only, so those sets have the names that it knows;
* ``--quiet``, which spares it scikit-learn's classification report.

``parts`` says where the time goes; ``floor`` is what the same model needs for the same pictures at the least: decoding
alone (Pillow), and open_clip's image tower over tensors that are ready.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import eval_compare
import eval_sets
import eval_weights
import peers

HERE = Path(__file__).parent
REQUIREMENTS = (
    "--no-deps",  # torch, torchvision, open_clip, scikit-learn and Pillow are ours: the same on both sides
    "clip-benchmark==1.6.2",
    "numpy==2.3.5",
    "webdataset==1.0.2",
    "braceexpand==0.1.7",
    "pycocoevalcap==1.2",
    "pycocotools==2.0.10",
)
FACTORS = {"default": 100.0, "datacomp": 500.0}
QUICK = {"default": 400.0, "datacomp": 4000.0}
BATCH = 64  # clip-benchmark's default
SIDES = ("clip_benchmark", "ours")
PARTS = ("start", "images", "texts", "metrics", "rest", "exit")
ONCE = ("start", "exit")  # what does not grow with the sets

Run = dict[str, Any]


def clip_benchmark_python() -> Path:
    """An interpreter with clip-benchmark and an older numpy, and everything else from here."""
    python = peers.venv("clip_benchmark", REQUIREMENTS)
    paths = sysconfig.get_paths()
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = python.parent.parent / "lib" / version / "site-packages"
    (site / "here.pth").write_text("\n".join(dict.fromkeys((paths["purelib"], paths["platlib"]))) + "\n")
    return python


def measured(side: str, options: dict[str, Any], folder: Path) -> Run:
    """Run one side to its end; what it took, and where its results are."""
    folder.mkdir()
    (folder / "out").mkdir()
    python = str(clip_benchmark_python()) if side == "clip_benchmark" else sys.executable
    full = {**options, "side": side, "out": str(folder / "out"), "begun": time.monotonic()}
    command = [python, str(HERE / "eval_side.py"), str(folder / "parts.json"), json.dumps(full)]
    counted = [sys.executable, str(HERE / "cpu_tree.py"), str(folder / "cpu.json"), *command]
    threads = {name: str(options["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    load = os.getloadavg()[0]
    with (folder / "words.txt").open("w") as said:
        subprocess.run(counted, env={**os.environ, **threads}, stdout=said, stderr=subprocess.STDOUT, check=True)
    cpu = json.loads((folder / "cpu.json").read_text())
    if cpu["code"]:
        raise SystemExit(f"{side} ended with status {cpu['code']}:\n{(folder / 'words.txt').read_text()[-3000:]}")
    found = json.loads((folder / "parts.json").read_text())
    in_all = [cpu["user"] + cpu["system"] - found["children_cpu"], cpu["wall"]]
    found["parts"]["exit"] = [all_ - sum(p[i] for p in found["parts"].values()) for i, all_ in enumerate(in_all)]
    return {
        "cpu_s": cpu["user"] + cpu["system"],
        "wall_s": cpu["wall"],
        "peak_bytes": cpu["peak_bytes"],
        "load_before": load,
        "out": str(folder / "out"),
        **found,
    }


def medians(runs: list[Run]) -> dict[str, Any]:
    """Of CPU and wall seconds in all and by part; loader processes count as pictures."""

    def part(run: Run, name: str, clock: int) -> float:
        seconds = run["parts"].get(name, [0.0, 0.0])[clock]
        return seconds + (run["children_cpu"] if name == "images" and clock == 0 else 0.0)

    def middle(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    return {
        "cpu_s": middle([r["cpu_s"] for r in runs]),
        "wall_s": middle([r["wall_s"] for r in runs]),
        "peak_bytes": max(r["peak_bytes"] for r in runs),
        "parts": {
            name: {
                "cpu_s": middle([part(r, name, 0) for r in runs]),
                "wall_s": middle([part(r, name, 1) for r in runs]),
            }
            for name in PARTS
        },
    }


def costs(side: dict[str, Any], told: dict[str, Any]) -> dict[str, float]:
    """CPU seconds per thousand pictures and per thousand texts, and of what there is once."""
    parts = {name: values["cpu_s"] for name, values in side["parts"].items()}
    return {
        "once_s": sum(parts[name] for name in ONCE),
        "per_1000_pictures_s": parts["images"] / told["pictures"] * 1e3,
        "per_1000_texts_s": parts["texts"] / told["texts"] * 1e3,
        "other_s": parts["metrics"] + parts["rest"],
    }


def by_ratio(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """CPU ratio ours / its for other mixes, from the costs per picture and per text alone (start-up left out)."""

    def ratio(texts: float) -> float:
        total = {s: c["per_1000_pictures_s"] + texts * c["per_1000_texts_s"] for s, c in found.items()}
        return round(total["ours"] / total["clip_benchmark"], 3)

    return {f"{texts:g} texts per picture": ratio(texts) for texts in (0.1, 0.46, 1, 1.6, 2, 4, 5, 8)}


def one_mix(mix: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both sides over one mix, round after round; which goes first changes."""
    factor = options.factor or (QUICK if options.quick else FACTORS)[mix]
    root = eval_sets.written(mix, factor)
    told = eval_sets.proportions(mix, factor)
    sets = eval_sets.scaled(mix, factor)
    names = [one.real.name for one in sets]
    asked = {
        "model": options.model,
        "weights": str(eval_weights.weights(options.model, peers.cache())),
        "root": str(root),
        "sets": names,
        "kinds": sorted({one.real.kind for one in sets}),
        "threads": options.threads,
        "batch": BATCH,
        "workers": 1,
    }
    words = f"{told['written']['pictures']} pictures, {told['written']['texts']} texts in {len(sets)} sets"
    print(f"{mix} / {factor:g}: {words}; {options.model}, {options.threads} threads", file=sys.stderr, flush=True)

    def run(side: str, what: str, **extra: Any) -> Run:
        found = measured(side, {**asked, **extra}, folder / f"{mix}-{side}-{what}")
        seconds = f"{found['cpu_s']:8.1f} s of CPU {found['wall_s']:8.1f} s  load {found['load_before']:.1f}"
        print(f"  {what:10} {side:15} {seconds}", file=sys.stderr, flush=True)
        return found

    trials = {}
    if not options.quick:
        trials = {str(n): run("clip_benchmark", f"workers-{n}", workers=n)["wall_s"] for n in (0, 1)}
        asked["workers"] = int(min(trials, key=lambda n: trials[n]))
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in SIDES if number % 2 else SIDES[::-1]:
            runs[side].append(run(side, f"round-{number}"))
    theirs = eval_compare.their_metrics(Path(runs["clip_benchmark"][0]["out"]), names)
    ours = eval_compare.our_metrics(Path(runs["ours"][0]["out"]), names)
    gap, by_metric = eval_compare.difference(ours, theirs)
    sides = {side: medians(found) for side, found in runs.items()}
    cost = {side: costs(found, told["written"]) for side, found in sides.items()}
    least = run("floor", "floor")

    def ratio(name: str) -> float:
        pairs = zip(runs["ours"], runs["clip_benchmark"], strict=True)
        return statistics.median(a[name] / b[name] for a, b in pairs)

    def full_size(clock: str) -> float:
        total = {}
        for side, found in sides.items():
            once = sum(found["parts"][name][clock] for name in ONCE)
            total[side] = once + factor * (found[clock] - once)
        return total["ours"] / total["clip_benchmark"]

    return {
        "proportions": told,
        "cpu_ratio": ratio("cpu_s"),
        "wall_ratio": ratio("wall_s"),
        "max_metric_diff": gap,
        "metric_diff": by_metric,
        "metrics_compared": len(theirs),
        "full_size": {"cpu_ratio": full_size("cpu_s"), "wall_ratio": full_size("wall_s")},
        "sides": sides,
        "costs": cost,
        "by_ratio": by_ratio(cost),
        "floor": {name: least["parts"].get(name, [0.0])[0] for name in ("decode", "forward")},
        "peer_workers": {"used": asked["workers"], "wall_s": trials},
        "runs": {
            s: [{k: r[k] for k in ("cpu_s", "wall_s", "load_before")} for r in found] for s, found in runs.items()
        },
    }


def show(mix: str, found: dict[str, Any]) -> None:
    """Tables for people."""
    real, written = found["proportions"]["real"], found["proportions"]["written"]
    print(
        f"\n{mix}: {real['pictures']} pictures and {real['texts']} texts / {found['proportions']['factor']:g}", end=""
    )
    print(f" = {written['pictures']} and {written['texts']} ({written['texts_per_picture']} texts per picture)")
    print(f"{'CPU s':12}{'clip-benchmark':>16}{'ours':>10}{'ratio':>8}")
    theirs, ours = (found["sides"][side] for side in SIDES)
    for name in PARTS:
        a, b = ours["parts"][name]["cpu_s"], theirs["parts"][name]["cpu_s"]
        print(f"{name:12}{b:16.2f}{a:10.2f}{a / b if b else float('nan'):8.3f}")
    print(f"{'all':12}{theirs['cpu_s']:16.2f}{ours['cpu_s']:10.2f}{found['cpu_ratio']:8.3f}")
    print(f"{'wall':12}{theirs['wall_s']:16.2f}{ours['wall_s']:10.2f}{found['wall_ratio']:8.3f}")
    print(f"floor: decoding {found['floor']['decode']:.2f} s, image tower {found['floor']['forward']:.2f} s")
    full = found["full_size"]
    print(f"at full size: CPU {full['cpu_ratio']:.3f}, wall {full['wall_ratio']:.3f}; by ratio: {found['by_ratio']}")
    print(f"largest difference of {found['metrics_compared']} metrics: {found['max_metric_diff']:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer pictures, one round")
    parser.add_argument("--mix", nargs="+", choices=sorted(eval_sets.MIXES), default=["default", "datacomp"])
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip model")
    parser.add_argument("--rounds", type=int, help="of turns; default 3, quick 1")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="torch threads of both sides")
    parser.add_argument("--factor", type=float, help="that pictures, classes and prompts are divided by")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    result: dict[str, Any] = {"model": options.model, "threads": options.threads, "mixes": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for mix in options.mix:
            found = result["mixes"][mix] = one_mix(mix, options, Path(temporary))
            show(mix, found)
    first = result["mixes"][options.mix[0]]
    result.update({name: first[name] for name in ("cpu_ratio", "wall_ratio")})
    result["max_metric_diff"] = max(found["max_metric_diff"] for found in result["mixes"].values())
    print(f"cpu_ratio {result['cpu_ratio']:.3f}, wall_ratio {result['wall_ratio']:.3f}", end="")
    print(f", max_metric_diff {result['max_metric_diff']:.1e}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
