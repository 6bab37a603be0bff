"""Memory and time of the losses over all pairs of a batch beside open_clip's, in one process on a CPU.

    python benchmarks/objectives.py [--json] [--batch B] [--dimensions D] [--chunk C]

Each side is a process of its own with one thread that computes loss and gradients of random float32 features. ``bytes``
is the growth of its peak resident memory over what it held with the features and the libraries in place; ``cpu_s`` the
median of a few repetitions; ``memory_ratio`` and ``time_ratio`` are open_clip's over ours: more is better.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Entry of the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(_measure(options)))
        return
    found: dict[str, Any] = {"batch": options.batch, "dimensions": options.dimensions, "chunk": options.chunk}
    for name in ("clip", "siglip"):
        ours, theirs = (_apart(options, f"{who} {name}") for who in ("ours", "theirs"))
        found[name] = {
            "ours": ours,
            "open_clip": theirs,
            "memory_ratio": round(theirs["bytes"] / ours["bytes"], 2),
            "time_ratio": round(theirs["cpu_s"] / ours["cpu_s"], 2),
        }
    if options.json:
        print(json.dumps(found))
        return
    for name in ("clip", "siglip"):
        row = found[name]
        for who in ("ours", "open_clip"):
            print(f"{name:7} {who:10} {row[who]['bytes'] / 2**20:8.0f} MiB {row[who]['cpu_s']:7.2f} s of CPU")
        print(f"{name:7} memory {row['memory_ratio']}x less, time {row['time_ratio']}x less")


def _apart(options: argparse.Namespace, side: str) -> dict[str, Any]:
    arguments = [f"--{name}={getattr(options, name)}" for name in ("batch", "dimensions", "chunk", "repeat")]
    ran = subprocess.run(
        [sys.executable, __file__, *arguments, f"--side={side}"], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(ran.stdout)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    image, text = (
        F.normalize(torch.randn(options.batch, options.dimensions, generator=generator), dim=1).requires_grad_()
        for _ in range(2)
    )
    scale, bias = torch.tensor(10.0).requires_grad_(), torch.tensor(-10.0).requires_grad_()
    step = _side(options, scale, bias)
    step(image[:8].detach().requires_grad_(), text[:8].detach().requires_grad_())
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts at what is resident now
    before, seconds = _status("VmRSS"), []
    loss = 0.0
    for _ in range(options.repeat):
        image.grad = text.grad = None
        start = time.process_time()
        loss = step(image, text)
        seconds.append(time.process_time() - start)
    return {"bytes": _status("VmHWM") - before, "cpu_s": round(statistics.median(seconds), 3), "loss": loss}


def _side(options: argparse.Namespace, scale: Any, bias: Any) -> Callable[[Any, Any], float]:
    """Loss and gradients by one side."""
    from open_clip.loss import ClipLoss, SigLipLoss

    from curate.pretrain.features import Features
    from curate.pretrain.objectives.clip import ClipObjective
    from curate.pretrain.objectives.siglip import SigLipObjective
    from curate.pretrain.processes.world import ALONE

    who, name = options.side.split()
    theirs = ClipLoss() if name == "clip" else SigLipLoss()
    ours = ClipObjective(chunk=options.chunk) if name == "clip" else SigLipObjective(chunk=options.chunk)

    def step(image: Any, text: Any) -> float:
        if who == "theirs":
            loss = theirs(image, text, scale, bias)
        else:
            loss = ours.terms(Features(image, text, scale, 0, len(image), bias=bias), ALONE)[name]
        loss.backward()
        return loss.item()

    return step


def _status(field: str) -> int:
    """A line of this process's status, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))


if __name__ == "__main__":
    main()
