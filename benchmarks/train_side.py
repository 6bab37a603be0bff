"""One side of the training benchmark, in a process of its own: open_clip's training, or ours.

    python benchmarks/train_side.py RESULT.json '{"side": "open_clip", ...}'

Both sides note when each step of the optimizer has ended, by torch's own hook, on the clock of whole machine. `begun`
is that clock when the parent started the process, so the first step's time has imports and the opening of the data in
it. RESULT.json: ``steps`` (seconds since then), and on our side ``speed`` (`pretrain/outputs/speed.py`).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    options = json.loads(sys.argv[2])
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    torch.set_num_threads(options["threads"])
    steps: list[float] = []
    register_optimizer_step_post_hook(lambda *_: steps.append(time.monotonic() - options["begun"]))
    found = {"open_clip": theirs, "ours": ours}[options["side"]](options)
    Path(sys.argv[1]).write_text(json.dumps({"steps": steps, **found}))


def theirs(options: dict[str, Any]) -> dict[str, Any]:
    """open_clip_train, as its command line runs it."""
    import open_clip
    from open_clip_train.main import main as run

    model = options["model"]
    if model.endswith(".json"):
        open_clip.add_model_config(model)
        model = Path(model).stem
    arguments = {
        "train-data": options["pattern"],
        "train-num-samples": options["samples"],
        "dataset-type": "webdataset",
        "model": model,
        "pretrained": options["start"],
        "batch-size": options["batch"],
        "epochs": options["epochs"],
        "lr": options["lr"],
        "wd": options["weight_decay"],
        "beta1": 0.9,
        "beta2": 0.98,
        "eps": 1e-6,
        "warmup": options["warmup"],
        "workers": options["workers"],
        "precision": "fp32" if options["device"] == "cpu" else "amp_bf16",
        "device": options["device"],
        "seed": options["seed"],
        "log-every-n-steps": 10,
        "save-frequency": options["epochs"],
        "logs": options["folder"],
        "name": "run",
    }
    code = run([part for name, value in arguments.items() for part in (f"--{name}", str(value))])
    if code:
        raise SystemExit(code)
    return {}


def ours(options: dict[str, Any]) -> dict[str, Any]:
    """`curate.pretrain`, as a pipeline's worker calls it."""
    import train_pairs

    from curate.pretrain.data.dataset import SubsetDataset
    from curate.pretrain.recipe import ClipRecipe
    from curate.pretrain.trainer import train

    recipe = ClipRecipe(
        batch_size=options["batch"],
        lr=options["lr"],
        weight_decay=options["weight_decay"],
        warmup=options["warmup"],
        threads=options["workers"],
        log_every=10,
    )
    folder = Path(options["folder"])
    report = train(
        recipe,
        options["model"],
        SubsetDataset(train_pairs.opened(Path(options["shards"]))),
        options["samples"] * options["epochs"],
        options["seed"],
        str(folder / "run"),
        str(folder / "scratch"),
        options["threads"],
        None,
        options["device"],
        start=options["start"],
    )
    return {"speed": report.speed}


if __name__ == "__main__":
    main()
