"""The GPU part of the training benchmark: ViT-B-32 in bf16, ours beside open_clip_train, on one GPU.

Both see the same shards for as many steps. A rate is that of the last three quarters of the steps, by the clock; our
``data_wait`` is the share of the time that the loop waited for its loader, and ``mfu`` counts what our network
computes, which is less than theirs per image, since padding is left out. The shards are small: this measures the
training, not a disk.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

MODEL, BATCH = "ViT-B-32", 1024


def usable() -> bool:
    """Whether there is a GPU."""
    import torch

    return torch.cuda.is_available()


def side_by_side(quick: bool, folder: Path) -> dict[str, Any]:
    """Images per second of both sides, and how our time is spent."""
    import train
    import train_pairs

    count, epochs = (8192, 2) if quick else (32_768, 4)
    shards = train_pairs.shards(0, count)
    options = {
        "model": MODEL,
        "start": train.start_weights(MODEL, 0, folder / "start.pt"),
        "shards": str(shards),
        "pattern": f"{shards}/{{00000..{len(list(shards.glob('*.tar'))) - 1:05d}}}.tar",
        "samples": count,
        "epochs": epochs,
        "batch": BATCH,
        "lr": 5e-4,
        "weight_decay": 0.2,
        "warmup": 10,
        "seed": 0,
        "threads": 1,
        "workers": max(1, min(8, (os.cpu_count() or 2) - 1)),
        "device": "cuda",
    }
    runs = {side: train.trained(side, options, folder / side) for side in train.SIDES}
    ratio = runs["ours"]["samples_per_s"] / runs["open_clip"]["samples_per_s"]
    return {"rate_ratio": ratio, "mfu": runs["ours"].get("mfu"), "data_wait": runs["ours"]["data_wait"], "runs": runs}
