"""Train one model on one subset: the same inputs and seed give the same bytes, killed and resumed or not.

The loop is the one place where everything meets: loader (`loader.py`), towers (`towers.py`), loss (`objectives/`),
AdamW (`optimizer.py`), rate (`schedule.py`), state (`checkpoint.py`). Nothing in it depends on the clock but *when* the
state is saved. Steps since the last save are done again after a kill: at most `checkpoint_every_s` seconds of work.
On one CPU thread the result is exact to the bit; another number of threads or a GPU rounds differently.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from ..errors import DataError
from ..shards import storage
from . import checkpoint, curves, streams
from .checkpoint import TrainingState
from .dataset import SubsetDataset
from .encoder_folder import WEIGHTS_FILE, find_encoder, write_config, write_record
from .loader import Loader
from .models import ModelSpec, build, resolve_model
from .optimizer import adamw
from .precision import arithmetic, contained, pick_device
from .recipe import Recipe
from .schedule import learning_rate
from .tokenizer import tokenizer_for
from .towers import Towers
from .weights import load_weights, weights_digest

OPEN_CLIP_CHECKPOINT = "checkpoints/epoch_latest.pt"


@dataclass(frozen=True)
class TrainReport:
    """What a training did.

    Attributes:
        steps, samples_seen: done; `samples_seen` is exactly what was asked for.
        samples: per epoch, repeats included; ``distinct`` without repeats.
        epochs: `samples_seen` / `samples`.
        loss: mean over the last logged steps.
        logit_scale: at the end.
        parameters: of the model.
        without_caption: selected rows that have no caption and were left out.
        corrupt: images that could not be decoded; `replaced`: how often another took their place.
    """

    steps: int
    samples_seen: int
    seed: int
    samples: int
    distinct: int
    epochs: float
    loss: float
    logit_scale: float
    parameters: int
    without_caption: int
    corrupt: int
    replaced: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def train(
    recipe: Recipe,
    model: str,
    dataset: SubsetDataset,
    samples_seen: int,
    seed: int,
    out: str,
    scratch: str,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    device: str = "auto",
    progress_every_s: float = 1.0,
    start: str | None = None,
) -> TrainReport:
    """Train and write an encoder folder.

    Args:
        recipe: how.
        model: name, JSON or folder, see `models.resolve_model`.
        samples_seen: budget, exact; the last batch is smaller if need be.
        seed: of initialisation, order and crops.
        out: encoder folder to write (`encoder_folder.py`), with ``log.jsonl``, ``tensorboard/`` and
            ``checkpoints/epoch_latest.pt``, which open_clip loads; ``encoder.json`` comes last.
        scratch: folder of the resumable state; call again with the same arguments to go on after a kill.
        threads: CPU threads; part of what the exact bits depend on.
        progress: called with (samples seen, samples to see), about every `progress_every_s` seconds.
        device: ``auto`` = a GPU if there is one.
        start: encoder folder or checkpoint of the same architecture whose weights are trained further.

    Raises:
        ConfigError: unknown model, or the weights to start from do not fit it.
        DataError: the loss is not finite, the images are corrupt, or the scratch folder is another training's.
    """
    spec = resolve_model(model)
    tokenizer = tokenizer_for(spec.tokenizer, spec.config["text_cfg"])
    loader = Loader(
        dataset,
        tokenizer,
        spec.preprocess.size,
        batch_size=recipe.batch_size,
        samples_seen=samples_seen,
        seed=seed,
        crop_scale=recipe.crop_scale,
        cache_mb=recipe.cache_mb,
    )
    place = pick_device(device)
    initial = build(spec, seed)
    if start:
        load_weights(initial, find_encoder(model, start).weights, spec.name)
    inputs = _inputs(recipe, spec, dataset, samples_seen, seed, initial if start else None)
    with contained(threads, place):
        towers = Towers(initial, spec.preprocess).to(place)
        optimizer = adamw(towers.model, recipe)
        state = checkpoint.restore_state(scratch, inputs, towers.model, optimizer)
        save = partial(checkpoint.save_state, scratch, inputs, state, towers.model, optimizer)
        _loop(recipe, towers, optimizer, loader, state, seed, save, progress, progress_every_s)
    report = TrainReport(
        steps=state.step,
        samples_seen=samples_seen,
        seed=seed,
        samples=len(dataset),
        distinct=dataset.distinct,
        epochs=samples_seen / len(dataset),
        loss=state.log[-1]["loss"],
        logit_scale=state.log[-1]["logit_scale"],
        parameters=sum(p.numel() for p in towers.model.parameters()),
        without_caption=dataset.without_caption,
        corrupt=len(state.corrupt),
        replaced=state.replaced,
    )
    _write(out, spec, recipe, towers.model, optimizer, state, report)
    return report


def _loop(
    recipe: Recipe,
    towers: Towers,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    state: TrainingState,
    seed: int,
    save: Callable[[], None],
    progress: Callable[[int, int], None] | None,
    progress_every_s: float,
) -> None:
    """All steps from `state.step` on; `state` is kept current."""
    model, objective, device = towers.model, recipe.objective(), towers.device
    parameters = list(model.parameters())
    losses = torch.empty(recipe.log_every, device=device)  # of the steps since the last line; read only with it
    pending = len(state.losses)
    losses[:pending] = torch.tensor(state.losses)
    saved = shown = time.monotonic()
    towers.train()
    for batch in loader.batches(state.step):
        torch.manual_seed(streams.key(seed, "step", batch.step) >> 1)  # patch dropout and the like
        rate = learning_rate(batch.step, loader.steps, recipe.lr, recipe.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate

        if len(batch.images) == 1:
            towers.eval()  # one sample has no batch statistics; batch norm would refuse it
        with arithmetic(device, recipe.precision):
            image = towers.encode_images(torch.from_numpy(batch.images).permute(0, 3, 1, 2))
            text = towers.encode_texts(batch.tokens)
        if len(text) < len(image):
            text = text[torch.from_numpy(batch.caption).to(device)]
        loss = objective.loss(image, text, model)
        loss.backward()
        if recipe.grad_clip:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(model)

        losses[pending] = loss.detach()
        pending += 1
        state.step += 1
        state.replaced += batch.replaced
        last = state.step == loader.steps
        if pending == recipe.log_every or last:
            window = _finite(losses[:pending].tolist(), state.step, loader.steps)
            scale = float(model.logit_scale.detach().exp())  # type: ignore[operator, union-attr]
            state.log.append(
                {
                    "step": state.step,
                    "samples_seen": loader.samples_seen_after(state.step),
                    "loss": math.fsum(window) / pending,
                    "lr": rate,
                    "logit_scale": scale,
                }
            )
            pending = 0
        now = time.monotonic()
        if last or now - saved >= recipe.checkpoint_every_s:
            state.losses = _finite(losses[:pending].tolist(), state.step, loader.steps)
            state.corrupt = sorted({*state.corrupt, *loader.corrupt})
            if not last:
                save()
            saved = time.monotonic()
        if progress and (last or now - shown >= progress_every_s):
            progress(loader.samples_seen_after(state.step), loader.samples_seen)
            shown = now


def _finite(losses: list[float], step: int, steps: int) -> list[float]:
    """The losses of the steps that end with `step`, or `DataError` naming the first that is not a number."""
    for i, loss in enumerate(losses):
        if not math.isfinite(loss):
            bad = step - len(losses) + i + 1
            raise DataError(
                f"the loss is {loss} at step {bad} of {steps}; "
                "lower the recipe's lr, lengthen its warmup or set grad_clip"
            )
    return losses


def _inputs(
    recipe: Recipe, spec: ModelSpec, dataset: SubsetDataset, samples_seen: int, seed: int, start: nn.Module | None
) -> str:
    """Digest of what the result depends on; `start`: a model that does not begin at the seed's weights."""
    options = recipe.model_dump(mode="json", exclude={"checkpoint_every_s", "cache_mb"})
    value = [options, spec.identity, dataset.identity(), samples_seen, seed]
    if start is not None:
        value.append(weights_digest(start))
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def _write(
    out: str,
    spec: ModelSpec,
    recipe: Recipe,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    report: TrainReport,
) -> None:
    """Publish the encoder folder, file by file, the record last."""
    from safetensors.torch import save_file

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with storage.publishing(storage.join(out, WEIGHTS_FILE)) as path:
        save_file(weights, path, {"format": "pt"})
    write_config(out, spec)
    resumable = {
        "epoch": int(report.epochs),
        "global_step": report.steps,
        "samples_seen": report.samples_seen,
        "name": spec.short_name,
        "state_dict": weights,
        "optimizer": optimizer.state_dict(),
    }
    checkpoint.save_torch(storage.join(out, OPEN_CLIP_CHECKPOINT), resumable)
    curves.write_log(out, state.log)
    curves.write_events(out, state.log)
    write_record(out, spec, {"recipe": recipe.model_dump(mode="json"), **report.to_json()})
