"""Our training's step beside a bare loop over ready tensors, step by step in one process.

`curate.pretrain.train` runs as it does for anyone, on shards: it reads, decodes and crops, makes tokens, steps, writes
its live log and looks whether the state is due. After each of its steps a bare step is made, from its progress
callback: forward, loss, backward, AdamW and nothing else, on a copy of the same batch. So
both see the same state of the machine; a figure is the CPU time of the process (all threads), its ratio a median.

``tight``: the network that the trainer runs (`PairNetwork`, which leaves out padding and rows that nobody looks at),
open_clip's `ClipLoss`, fused AdamW, on uint8 images and tokens: nothing can be left out of it.
``plain``: open_clip's own model, on normalised float32 images and 77 tokens per caption, with its training's AdamW.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SKIPPED = 2  # steps that are not counted: memory is taken and pages are touched for the first time


Held = list[tuple[Any, Any]]
"""What a bare step trains on, alone in a list: ``(b, 3, h, w) uint8`` and ``(b, 77) int64``."""


def ready(folder: Path, model: str, batch: int) -> tuple[Any, Any]:
    """One batch in memory."""
    import train_pairs

    from curate.pretrain.data.dataset import SubsetDataset
    from curate.pretrain.data.loader import Loader
    from curate.pretrain.data.tokenizer import tokenizer_for
    from curate.pretrain.models.architecture import resolve_model

    spec = resolve_model(model)
    tokenizer = tokenizer_for(spec.tokenizer, spec.config["text_cfg"])
    dataset = SubsetDataset(train_pairs.opened(folder))
    return copied(next(Loader(dataset, tokenizer, spec.preprocess.size, batch, batch, 1).batches()))


def copied(batch: Any) -> tuple[Any, Any]:
    """What is left of a batch when the loader makes the next one."""
    import torch

    return torch.from_numpy(batch.images.copy()).permute(0, 3, 1, 2), batch.tokens[batch.caption]


def bare_tight(model: str, held: Held) -> Callable[[], float]:
    """One step of the trainer's own network."""
    import torch
    from open_clip.loss import ClipLoss

    from curate.pretrain.models.architecture import build, resolve_model
    from curate.pretrain.models.network import PairNetwork
    from curate.pretrain.models.towers import Towers
    from curate.pretrain.optim.optimizer import build_optimizer
    from curate.pretrain.optim.optimizer_options import AdamW

    spec = resolve_model(model)
    network = PairNetwork(Towers(build(spec, 0), spec.preprocess), spec.config["embed_dim"]).train()
    optimizer = build_optimizer(network, AdamW(), 5e-4, 0.2)
    loss, scale = ClipLoss(), network.model.logit_scale

    def step() -> float:
        images, tokens = held[0]
        begun = time.process_time()
        out = network(images, tokens)
        loss(out["image"], out["text"], out["scale"]).backward()
        optimizer.step()
        with torch.no_grad():
            scale.clamp_(0, math.log(100))  # type: ignore[operator, union-attr]
        optimizer.zero_grad()
        return time.process_time() - begun

    return step


def bare_plain(model: str, held: Held) -> Callable[[], float]:
    """One step of open_clip's model, as its training makes it, on tensors that need nothing more."""
    import torch
    from open_clip.loss import ClipLoss

    from curate.pretrain.data.transform import normalised
    from curate.pretrain.models.architecture import build, resolve_model
    from curate.pretrain.optim.optimizer import decays

    spec = resolve_model(model)
    network: Any = build(spec, 0).train()
    named = list(network.named_parameters())
    groups = [
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
        {"params": [p for n, p in named if decays(n, p)], "weight_decay": 0.2},
    ]
    optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-6)
    pre = spec.preprocess
    loss = ClipLoss()

    def step() -> float:
        images = normalised(held[0][0].permute(0, 2, 3, 1).numpy(), pre.mean, pre.std)
        tokens = torch.from_numpy(held[0][1])
        begun = time.process_time()
        optimizer.zero_grad()
        loss(*network(images, tokens)[:3]).backward()
        optimizer.step()
        with torch.no_grad():
            network.logit_scale.clamp_(0, math.log(100))
        return time.process_time() - begun

    return step


def side_by_side(
    folder: str, model: str, batch: int, steps: int, threads: int, cache_mb: int, bare: list[str]
) -> dict[str, Any]:
    """A training of `steps` steps, each followed by a bare one of each kind.

    Args:
        threads: of the loader; 0 = the trainer makes its batches itself, between steps.
        cache_mb: of decoded images.
    """
    import torch
    import train_pairs

    from curate.pretrain.data.dataset import SubsetDataset
    from curate.pretrain.data.loader import Loader
    from curate.pretrain.recipe import ClipRecipe
    from curate.pretrain.trainer import train

    torch.set_num_threads(1)
    held: Held = []
    makers = {"tight": bare_tight, "plain": bare_plain}
    loops = {name: makers[name](model, held) for name in bare}
    spent: dict[str, list[float]] = {name: [] for name in ("ours", "loading", *bare)}
    since, waiting = [time.process_time()], [0.0]
    batches_of = Loader.batches

    def watched(self: Loader, start_step: int = 0) -> Iterator[Any]:
        """The loader's batches; each is copied for the bare steps, at nobody's expense."""
        made = batches_of(self, start_step)
        while True:
            begun = time.process_time()
            batch = next(made, None)
            if batch is None:
                return
            ended = time.process_time()
            waiting[0] = ended - begun
            held[:] = [copied(batch)]
            since[0] += time.process_time() - ended
            yield batch

    def between(seen: int, budget: int) -> None:
        """The trainer calls this after each step; what it did since the last call is its step."""
        spent["ours"].append(time.process_time() - since[0])
        spent["loading"].append(waiting[0])
        for name, step in loops.items():
            spent[name].append(step())
        since[0] = time.process_time()

    Loader.batches = watched  # type: ignore[method-assign]
    recipe = ClipRecipe(batch_size=batch, warmup=2, cache_mb=cache_mb, threads=threads)
    dataset = SubsetDataset(train_pairs.opened(Path(folder)))
    with tempfile.TemporaryDirectory() as temporary:
        out, scratch = f"{temporary}/out", f"{temporary}/scratch"
        train(recipe, model, dataset, batch * steps, 0, out, scratch, 1, between, "cpu", progress_every_s=0.0)
    kept = {name: values[SKIPPED:] for name, values in spent.items()}
    result: dict[str, Any] = {
        "batch": batch,
        "steps": steps - SKIPPED,
        "threads": threads,
        "cpu_s": {name: statistics.median(values) for name, values in kept.items()},
        "first_step_s": spent["ours"][0],
    }
    for name in bare:
        ratios = sorted(a / b for a, b in zip(kept["ours"], kept[name], strict=True))
        result[f"over_{name}"] = statistics.median(ratios)
        result[f"over_{name}_quartiles"] = [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]]
    if not threads:
        loaded = [a - b for a, b in zip(kept["ours"], kept["loading"], strict=True)]
        result["over_tight_without_loading"] = statistics.median(
            a / b for a, b in zip(loaded, kept["tight"], strict=True)
        )
    return result


def floor(model: str, batch: int, folder: Path) -> dict[str, float]:
    """What the arithmetic alone would take: operations of a step, and the rate of large matrix products here."""
    import torch

    from curate.pretrain.models.architecture import build, resolve_model
    from curate.pretrain.models.network import PairNetwork
    from curate.pretrain.models.towers import Towers
    from curate.pretrain.outputs.flops import network_flops

    torch.set_num_threads(1)
    spec = resolve_model(model)
    tokens = ready(folder, model, batch)[1]
    network = PairNetwork(Towers(build(spec, 0), spec.preprocess), spec.config["embed_dim"]).train()
    work = network_flops(network, spec.preprocess.size, batch, tokens) * batch
    width = int(spec.config["vision_cfg"]["width"])
    rows = batch * 50
    a, b = torch.randn(rows, width), torch.randn(4 * width, width)
    rates = []
    for _ in range(10):
        begun = time.process_time()
        for _ in range(10):
            torch.nn.functional.linear(a, b)
        rates.append(10 * 2 * rows * width * 4 * width / (time.process_time() - begun))
    rate = statistics.median(rates)
    return {"flops_per_step": work, "gemm_flops_per_s": rate, "floor_s": work / rate}


if __name__ == "__main__":
    print(json.dumps(side_by_side(**json.loads(sys.argv[1]))))
