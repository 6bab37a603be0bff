"""Evaluation side by side with clip-benchmark 1.6.2: the same checkpoint, sets and numbers.

    python benchmarks/eval.py [--json] [--quick] [--model ViT-B-32] [--mix multilingual english datacomp]

Both sides are whole commands, from the start of a process to its exit, one after the other in turns, and read the same
files: one checkpoint (`eval_weights.py`) and the sets of a mix (`eval_sets.py`), in the layout that clip-benchmark's
own export writes. fp32, no autocast, CPU, `--threads` torch threads on both sides. ``cpu_ratio`` and ``wall_ratio`` are
ours / its, medians over rounds, CPU of the whole process tree. ``max_metric_diff`` is the largest difference over all
metrics that both have: acc1, acc5, mean_per_class_recall, mAP, image and text recall@1, 5, 10.

**What is measured.** ``multilingual`` (29 sets) is an evaluation in English and other languages with what
clip-benchmark has for it: its multilingual ImageNet (4 languages), Babel-ImageNet (8), multilingual MS-COCO (8) and
nine English sets of 1,000 to 10,000 pictures, three of them retrieval. ``english`` is those nine alone, ``datacomp``
all tasks of DataComp, ``reported`` the first without Babel-ImageNet. All are printed; ``cpu_ratio`` is that of the
first.

**Where 5x holds, and where it cannot.** A picture costs both sides the same matrix products, and both run them near
what the core can do. What is gained: pictures that sets share are embedded once (languages, relabelled sets); a text
costs its own length, not 77 tokens, and is encoded once however many sets share it (an English prompt an eighth of
what it costs there, a Chinese one a third); the model is loaded once. So about 5x holds where sets share pictures. It
cannot hold, with any code that gives these numbers, where every picture is new: ``english`` gains 2.7x, and
``datacomp``, with two pictures per text, about 1.5x. ``by_mix`` and ``by_ratio`` tell what to expect of others.

On a machine that is busy with other things the ratios come out too low: clip-benchmark's two torch threads then wait
for each other, turning. ``load_before`` tells for each run.

Sets are scaled down by ``factor``, which makes start-up weigh more than it does in the world, and clip-benchmark pays
it for every set: ``full_size`` is what the measured costs per picture and per text give for the real numbers of both.

The model is ViT-B-32, which DataComp trains at its small and medium scales and the largest that one evaluates on CPUs;
``--model ViT-S-32`` is the smallest of open_clip's plain ones.

clip-benchmark's faults, and what is done about them without touching its numbers (its code runs as it is installed):

* its accuracy fails with numpy >= 2.4, so its environment has numpy 2.3.5;
* with more loader processes than shards (its default is 4, and every set here is one shard, as all are up to 10,000
  pictures) webdataset finds no samples: it runs with 0 and with 1 over a few pictures of ``english``, and the faster is
  kept (``--quick``: with 1);
* autocast is on by default and on a CPU eleven times slower: ``--no_amp`` (ours has none);
* recall@k fails where there are fewer than k pictures: no set is that small;
* acc5 is a bare NaN below 5 classes, where ours is null: no set has so few;
* whether a set is retrieval it tells by names only, and a WebDataset has no language: it is asked once for sets with
  classes and once for retrieval, and each language is a set of its own;
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
from eval_costs import PARTS, Run, by_ratio, costs, medians, projected

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
FACTORS = {"multilingual": 400.0, "reported": 400.0, "english": 400.0, "datacomp": 4000.0}
QUICK = {"multilingual": 1000.0, "reported": 800.0, "english": 800.0, "datacomp": 8000.0}
DEFAULT = ("multilingual", "english", "datacomp")
BATCH = 64  # clip-benchmark's default
SIDES = ("clip_benchmark", "ours")


def clip_benchmark_python() -> Path:
    """An interpreter with clip-benchmark and an older numpy, and everything else from here."""
    python = peers.venv("clip_benchmark", REQUIREMENTS)
    paths = sysconfig.get_paths()
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = python.parent.parent / "lib" / version / "site-packages"
    (site / "here.pth").write_text("\n".join(dict.fromkeys((paths["purelib"], paths["platlib"]))) + "\n")
    return python


def class_name_lists() -> Path:
    """Folder of clip-benchmark's files of ImageNet's class names and templates in other languages."""
    return next(clip_benchmark_python().parent.parent.glob("lib/*/site-packages/clip_benchmark/datasets"))


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


class Sets:
    """A mix as it is written, for both sides to run over.

    Attributes:
        told: numbers of pictures and texts (`eval_sets.proportions`).
        names: of its sets.
    """

    def __init__(self, mix: str, factor: float, options: argparse.Namespace, folder: Path) -> None:
        root = eval_sets.written(mix, factor, class_name_lists())
        sets = eval_sets.scaled(mix, factor)
        self.told = eval_sets.proportions(mix, factor)
        self.names = [one.real.name for one in sets]
        self._folder = folder / f"{mix}-{factor:g}"
        self._folder.mkdir()
        self._asked = {
            "model": options.model,
            "weights": str(eval_weights.weights(options.model, peers.cache())),
            "root": str(root),
            "sets": self.names,
            "kinds": sorted({one.real.kind for one in sets}),
            "retrieval": [one.real.name for one in sets if one.real.kind == "retrieval"],
            "threads": options.threads,
            "batch": BATCH,
        }
        here = self.told["written"]
        words = f"{here['pictures']} pictures ({here['distinct_pictures']} distinct), {here['texts']} texts"
        said = f"{mix} / {factor:g}: {words} in {len(sets)} sets; {options.model}, {options.threads} threads"
        print(said, file=sys.stderr, flush=True)

    def run(self, side: str, what: str, workers: int) -> Run:
        """One side, once."""
        found = measured(side, {**self._asked, "workers": workers}, self._folder / f"{side}-{what}")
        seconds = f"{found['cpu_s']:8.1f} s of CPU {found['wall_s']:8.1f} s  load {found['load_before']:.1f}"
        print(f"  {what:10} {side:15} {seconds}", file=sys.stderr, flush=True)
        return found


def faster_workers(sets: Sets) -> dict[str, float]:
    """Wall seconds of clip-benchmark by its number of loader processes."""
    return {str(n): sets.run("clip_benchmark", f"workers-{n}", n)["wall_s"] for n in (0, 1)}


def one_mix(sets: Sets, rounds: int, workers: int) -> dict[str, Any]:
    """Both sides over one mix, round after round; which goes first changes."""
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 else SIDES[::-1]:
            runs[side].append(sets.run(side, f"round-{number}", workers))
    theirs = eval_compare.their_metrics(Path(runs["clip_benchmark"][0]["out"]), sets.names)
    ours = eval_compare.our_metrics(Path(runs["ours"][0]["out"]), sets.names)
    gap, by_metric = eval_compare.difference(ours, theirs)
    sides = {side: medians(found) for side, found in runs.items()}
    cost = {
        clock: {side: costs(side, found, sets.told["written"], clock) for side, found in sides.items()}
        for clock in ("cpu_s", "wall_s")
    }
    least = sets.run("floor", "floor", 0)

    def ratio(name: str) -> float:
        pairs = zip(runs["ours"], runs["clip_benchmark"], strict=True)
        return statistics.median(a[name] / b[name] for a, b in pairs)

    return {
        "proportions": sets.told,
        "cpu_ratio": ratio("cpu_s"),
        "wall_ratio": ratio("wall_s"),
        "max_metric_diff": gap,
        "metric_diff": by_metric,
        "metrics_compared": len(theirs),
        "full_size": {f"{c[:-2]}_ratio": projected(cost[c], sets.told["real"]) for c in cost},
        "sides": sides,
        "costs": cost,
        "by_ratio": by_ratio(cost["cpu_s"]),
        "by_mix": {mix: projected(cost["cpu_s"], eval_sets.proportions(mix, 1)["real"]) for mix in eval_sets.MIXES},
        "floor": {name: least["parts"].get(name, [0.0])[0] for name in ("decode", "forward")},
        "runs": {
            s: [{k: r[k] for k in ("cpu_s", "wall_s", "load_before")} for r in found] for s, found in runs.items()
        },
    }


def show(mix: str, found: dict[str, Any]) -> None:
    """Tables for people."""
    factor = found["proportions"]["factor"]
    for name, by in (("real", 1), ("written", factor)):
        told = found["proportions"][name]
        print(f"\n{mix} / {by:g}: {told['pictures']} pictures, {told['distinct_pictures']} of them distinct; ", end="")
        print(f"{told['texts']} texts, {told['distinct_texts']} of them distinct", end="")
    print(f"\n{'CPU s':12}{'clip-benchmark':>16}{'ours':>10}{'ratio':>8}")
    theirs, ours = (found["sides"][side] for side in SIDES)
    for name in PARTS:
        a, b = ours["parts"][name]["cpu_s"], theirs["parts"][name]["cpu_s"]
        print(f"{name:12}{b:16.2f}{a:10.2f}{a / b if b else float('nan'):8.3f}")
    print(f"{'all':12}{theirs['cpu_s']:16.2f}{ours['cpu_s']:10.2f}{found['cpu_ratio']:8.3f}")
    print(f"{'wall':12}{theirs['wall_s']:16.2f}{ours['wall_s']:10.2f}{found['wall_ratio']:8.3f}")
    print(f"floor: decoding {found['floor']['decode']:.2f} s, image tower {found['floor']['forward']:.2f} s")
    full = found["full_size"]
    print(f"at full size: CPU {full['cpu_ratio']:.3f}, wall {full['wall_ratio']:.3f}")
    print(f"from these costs, other mixes at full size: {found['by_mix']}")
    print(f"from these costs, nothing shared: {found['by_ratio']}")
    print(f"largest difference of {found['metrics_compared']} metrics: {found['max_metric_diff']:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer pictures, one round, the first mix alone")
    parser.add_argument(
        "--mix", nargs="+", choices=list(eval_sets.MIXES), help=f"default: {' '.join(DEFAULT)}; quick: the first"
    )
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip model")
    parser.add_argument("--rounds", type=int, help="of turns over the first mix, others have one; default 2, quick 1")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="torch threads of both sides")
    parser.add_argument("--factor", type=float, help="that pictures, classes and prompts are divided by")
    options = parser.parse_args()
    mixes = options.mix or DEFAULT[: 1 if options.quick else None]
    rounds = options.rounds or (1 if options.quick else 2)
    result: dict[str, Any] = {"model": options.model, "threads": options.threads, "workers": 1, "mixes": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if not options.quick:
            (folder / "trials").mkdir()
            trials = faster_workers(Sets("english", QUICK["english"], options, folder / "trials"))
            result["workers"], result["wall_s_by_workers"] = int(min(trials, key=lambda n: trials[n])), trials
        for number, mix in enumerate(mixes):
            factor = options.factor or (QUICK if options.quick else FACTORS)[mix]
            sets = Sets(mix, factor, options, folder)
            found = one_mix(sets, 1 if number else rounds, result["workers"])
            result["mixes"][mix] = found
            show(mix, found)
    first = result["mixes"][mixes[0]]
    result.update({name: first[name] for name in ("cpu_ratio", "wall_ratio")})
    result["max_metric_diff"] = max(found["max_metric_diff"] for found in result["mixes"].values())
    print(f"\ncpu_ratio {result['cpu_ratio']:.3f}, wall_ratio {result['wall_ratio']:.3f}", end="")
    print(f", max_metric_diff {result['max_metric_diff']:.1e}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
