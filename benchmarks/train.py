"""Training, side by side with a bare loop and with open_clip's own training.

    python benchmarks/train.py [--json] [--quick] [--seeds 2]

``step_ratio``: CPU time of one of our trainer's steps over that of a bare loop over ready tensors, ViT-B-32, median of
steps taken in turns (`train_steps.py`). Ours is everything that the trainer does, reading and decoding shards included;
the bare loop is the same network, so it leaves out the same padding. Against open_clip's plain model see
``steps.*.over_plain``. The small model's figures stand beside it: the less a step computes, the more the rest counts.

``end_to_end_ratio``: wall time of our training over open_clip_train's, each a process from start to exit (imports,
opening of the data and saved checkpoint included), one after the other in turns. Same shards (`train_pairs.py`), small
model (`train_model.json`: a ViT of 0.3 GFLOP at 224 pixels), initial weights, samples seen, batch, AdamW, cosine; fp32,
one torch thread, one worker (theirs a process, ours a thread), in-training evaluation off on both. ``val_loss`` is
`retrieval.contrastive_loss` on the same held-out pairs, by the same code for both checkpoints; ``val_loss_gap`` is ours
minus theirs, mean over seeds. The sides draw other crops and another order, so single seeds differ by chance.
Wall time means little on a machine with other work: ``load_before`` tells, and ``cpu_ratio`` is then the better figure.

With a GPU the same command also trains ViT-B-32 in bf16 on both sides (`train_gpu.py`): images/s, MFU, data-wait.
``peak_bytes`` is the resident memory of a side's largest process; their loader's process comes on top of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import loader
import train_pairs

HERE = Path(__file__).parent
SMALL = str(HERE / "train_model.json")
HELD_OUT, VAL_BATCH = 512, 64
SIDES = ("open_clip", "ours")


def start_weights(model: str, seed: int, path: Path) -> str:
    """Initial weights of both sides, as a file that both load."""
    import torch

    from curate.pretrain.models.architecture import build, resolve_model

    torch.save(build(resolve_model(model), seed).state_dict(), path)
    return str(path)


def trained(side: str, options: dict[str, Any], folder: Path, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run one side to its end; what it took."""
    folder.mkdir()
    python = str(loader.open_clip_python()) if side == "open_clip" else sys.executable
    load, began = os.getloadavg()[0], time.monotonic()
    full = {**options, **(extra or {}), "side": side, "folder": str(folder), "begun": began}
    command = [python, str(HERE / "train_side.py"), str(folder / "steps.json"), json.dumps(full)]
    measured = [sys.executable, str(HERE / "cpu_tree.py"), str(folder / "cpu.json"), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options["threads"])}
    with (folder / "words.txt").open("w") as words:
        subprocess.run(measured, env=environment, stdout=words, stderr=subprocess.STDOUT, check=True)
    cpu = json.loads((folder / "cpu.json").read_text())
    if cpu["code"]:
        raise SystemExit(f"{side} ended with status {cpu['code']}:\n{(folder / 'words.txt').read_text()[-3000:]}")
    found = json.loads((folder / "steps.json").read_text())
    steps = found["steps"]
    expected = options["samples"] * options["epochs"] // options["batch"]
    if len(steps) != expected:
        raise SystemExit(f"{side} made {len(steps)} steps, not {expected}")
    late = steps[len(steps) // 4 :]
    return {
        "wall_s": cpu["wall"],
        "cpu_s": cpu["user"] + cpu["system"],
        "load_before": load,
        "peak_bytes": cpu["peak_bytes"],
        "first_step_s": steps[0],
        "after_last_step_s": cpu["wall"] - steps[-1],
        "samples_per_s": (len(late) - 1) * options["batch"] / (late[-1] - late[0]),
        **{
            name: found["speed"][name]
            for name in ("data_wait", "peak_rss_bytes", "mfu")
            if name in found.get("speed", {})
        },
    }


def checkpoint(side: str, folder: Path, epochs: int) -> tuple[str, str | None]:
    """What `load_encoder` takes, after the model's name on their side."""
    if side == "ours":
        return str(folder / "run"), None
    return SMALL, str(folder / "run" / "checkpoints" / f"epoch_{epochs}.pt")


def val_loss(model: str, weights: str | None, bodies: list[bytes], captions: list[str]) -> float:
    """On held-out pairs, with the model's own scale."""
    import torch

    from curate.pretrain.encoders.load_encoder import load_encoder
    from curate.pretrain.outputs.retrieval import contrastive_loss

    encoder = load_encoder(model, weights, "cpu")
    image, text = (torch.from_numpy(f) for f in (encoder.encode_images(bodies), encoder.encode_texts(captions)))
    return contrastive_loss(image, text, encoder.logit_scale, VAL_BATCH)


def end_to_end(count: int, batch: int, seeds: int, folder: Path) -> dict[str, Any]:
    """Both sides, seed by seed; which goes first changes."""
    shards = train_pairs.shards(0, count)
    bodies, captions = train_pairs.read(train_pairs.shards(1 << 30, HELD_OUT))
    steps = count // batch
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for seed in range(seeds):
        options = {
            "model": SMALL,
            "start": start_weights(SMALL, seed, folder / f"start-{seed}.pt"),
            "shards": str(shards),
            "pattern": f"{shards}/{{00000..{len(list(shards.glob('*.tar'))) - 1:05d}}}.tar",
            "samples": count,
            "epochs": 1,
            "batch": batch,
            "lr": 1e-3,
            "weight_decay": 0.2,
            "warmup": max(1, steps // 10),
            "seed": seed,
            "threads": 1,
            "workers": 1,
            "device": "cpu",
        }
        for side in SIDES if seed % 2 else SIDES[::-1]:
            place = folder / f"{side}-{seed}"
            run = trained(side, options, place)
            run["val_loss"] = val_loss(*checkpoint(side, place, 1), bodies, captions)
            runs[side].append(run)
            words = f"{run['wall_s']:7.1f} s  {run['cpu_s']:7.1f} s of CPU  {run['samples_per_s']:6.1f} samples/s"
            print(f"seed {seed} {side:10} {words}  validation loss {run['val_loss']:.4f}", file=sys.stderr, flush=True)
    start = val_loss(SMALL, str(folder / "start-0.pt"), bodies, captions)

    def ratio(name: str) -> float:
        pairs = zip(runs["ours"], runs["open_clip"], strict=True)
        return statistics.median(a[name] / b[name] for a, b in pairs)

    gaps = [a["val_loss"] - b["val_loss"] for a, b in zip(runs["ours"], runs["open_clip"], strict=True)]
    return {
        "samples_seen": count,
        "batch": batch,
        "ratio": ratio("wall_s"),
        "cpu_ratio": ratio("cpu_s"),
        "peak_ratio": ratio("peak_bytes"),
        "val_loss_untrained": start,
        "val_loss_gap": statistics.mean(gaps),
        "runs": runs,
    }


def steps_of(name: str, model: str, shards: Path, batch: int, steps: int, bare: list[str]) -> dict[str, Any]:
    """`train_steps.side_by_side`, in a process of its own."""
    value = {"folder": str(shards), "model": model, "batch": batch, "steps": steps, "threads": 0, "cache_mb": 0}
    command = [sys.executable, str(HERE / "train_steps.py"), json.dumps({**value, "bare": bare})]
    result = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
    found = json.loads(result.stdout.splitlines()[-1])
    low, high = found["over_tight_quartiles"]
    words = f"{found['cpu_s']['ours']:.3f} s of CPU a step of {batch}, loading {found['cpu_s']['loading']:.3f}"
    print(f"{name:10} {words}; over a bare loop {found['over_tight']:.3f} ({low:.3f} to {high:.3f})", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer samples and steps, one seed")
    parser.add_argument("--seeds", type=int, default=2, help="of the trainings that are compared")
    parser.add_argument("--samples", type=int, default=8192, help="seen by each of them, a multiple of 64")
    parser.add_argument("--only", choices=("steps", "end_to_end", "gpu"), help="one part alone")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    shards = train_pairs.shards(0, 512)
    if options.only in (None, "steps"):
        import train_steps

        small, large = (12, 5) if options.quick else (40, 12)
        result["steps"] = {
            "small": steps_of("small", SMALL, shards, 64, small, ["tight", "plain"]),
            "ViT-B-32": steps_of("ViT-B-32", "ViT-B-32", shards, 16, large, ["tight"]),
        }
        result["floor"] = train_steps.floor("ViT-B-32", 16, shards)
        result["step_ratio"] = result["steps"]["ViT-B-32"]["over_tight"]
        print(f"step_ratio {result['step_ratio']:.3f}")
    if options.only in (None, "end_to_end"):
        count, seeds = (512, 1) if options.quick else (options.samples, options.seeds)
        with tempfile.TemporaryDirectory() as temporary:
            found = result["end_to_end"] = end_to_end(count, 64, seeds, Path(temporary))
        result["end_to_end_ratio"], result["val_loss_gap"] = found["ratio"], found["val_loss_gap"]
        print(f"end_to_end_ratio {found['ratio']:.3f}, of CPU time {found['cpu_ratio']:.3f}")
        print(f"validation loss, ours minus theirs: {found['val_loss_gap']:+.4f}")
    if options.only in (None, "gpu"):
        import train_gpu

        if train_gpu.usable():
            with tempfile.TemporaryDirectory() as temporary:
                result["gpu"] = train_gpu.side_by_side(options.quick, Path(temporary))
            print(json.dumps(result["gpu"], indent=2))
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
