"""Short supervised trainings of a small image tower with a linear head: proxies that tell which samples are hard.

The samples come from the same loader as a CLIP training's, with labels in the captions' place, so the order and the
crops are functions of (seed, step), and a training that was killed goes on from its last state, to the same bits. The
head has no bias: the gradient of the loss with respect to it is then exactly ``(p - y) x^T``. Price: of a model that
reads text as well only the image tower is used; the rest is built and thrown away.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...errors import DataError
from .. import streams
from ..data.labelled import LabelledDataset
from ..data.loader import Loader
from ..models.architecture import ModelSpec, build, resolve_model
from ..optim.parameter_groups import decays
from ..optim.schedule import learning_rate
from ..precision import contained, pick_device
from ..state import checkpoint
from ..state.checkpoint import TrainingState
from .proxy_recipe import ProxyRecipe

LOG_EVERY = 10  # steps


@dataclass(frozen=True)
class ProxyReport:
    """What a proxy's training did.

    Attributes:
        steps, samples_seen: done.
        samples: labelled samples.
        loss, accuracy: mean over the last steps that were logged, on the samples as they were met.
        corrupt: images that could not be decoded.
    """

    steps: int
    samples_seen: int
    samples: int
    loss: float
    accuracy: float
    corrupt: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


class Proxy(nn.Module):
    """uint8 images -> features and logits.

    Attributes:
        tower: an image tower of open_clip.
        head: ``(classes, d)``, no bias.
    """

    shift: torch.Tensor
    factor: torch.Tensor

    def __init__(self, spec: ModelSpec, classes: int, seed: int) -> None:
        super().__init__()
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.preprocess.mean, spec.preprocess.std))
        self.register_buffer("shift", 255 * mean.float(), persistent=False)
        self.register_buffer("factor", 1 / (255 * std.float()), persistent=False)
        self.tower = cast(nn.Module, build(spec, seed).visual)
        width = int(spec.config["embed_dim"])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(streams.key(seed, "head") >> 1)
            self.head = nn.Linear(width, classes, bias=False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(b, 3, h, w) uint8`` -> features ``(b, d)`` and logits ``(b, classes)``, float32."""
        features = self.tower(images.to(self.shift.device).float().sub_(self.shift).mul_(self.factor))
        features = features[0] if isinstance(features, tuple) else features  # CoCa's tower also returns its tokens
        return features, self.head(features)


def train_proxy(
    recipe: ProxyRecipe,
    model: str,
    dataset: LabelledDataset,
    classes: Sequence[str],
    samples_seen: int,
    seed: int,
    out: str,
    scratch: str,
    progress: Callable[[int, int], None] | None = None,
    device: str = "auto",
) -> ProxyReport:
    """Train one proxy and publish its weights.

    Args:
        model: name, JSON or folder, see `models.resolve_model`; its weights are not used.
        classes: all labels; their order is that of the logits.
        samples_seen: budget, exact; the last batch is smaller if need be.
        seed: of initialisation, order and crops.
        out: file to write, for `load_proxy`.
        scratch: folder of the resumable state; call again with the same arguments to go on after a kill.
        progress: called with (samples seen, samples to see).

    Raises:
        ConfigError: unknown model. DataError: the loss is not finite, or the images are corrupt.
    """
    spec = resolve_model(model)
    number = {label: i for i, label in enumerate(classes)}

    def numbers(labels: list[str]) -> np.ndarray:
        return np.array([number[label] for label in labels], np.int64)

    loader = Loader(
        cast(Any, dataset),
        cast(Any, numbers),
        spec.preprocess.size,
        batch_size=recipe.batch_size,
        samples_seen=samples_seen,
        seed=seed,
        crop_scale=recipe.crop_scale,
        cache_mb=recipe.cache_mb,
    )
    place = pick_device(device)
    options = recipe.model_dump(mode="json", exclude={"checkpoint_every_s", "cache_mb"})
    value = [options, spec.identity, dataset.identity(), list(classes), samples_seen, seed]
    inputs = hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()
    with contained(1, place):
        proxy = Proxy(spec, len(classes), seed).to(place)
        optimizer = adamw(proxy, recipe)
        state = checkpoint.restore_state(scratch, inputs, proxy, optimizer)
        _loop(recipe, proxy, optimizer, loader, state, seed, scratch, inputs, progress)
    checkpoint.save_torch(out, {k: v.cpu() for k, v in proxy.state_dict().items()})
    last = state.log[-1]
    return ProxyReport(
        state.step, samples_seen, len(dataset), last["loss"], last["accuracy"], len({*state.corrupt, *loader.corrupt})
    )


def _loop(
    recipe: ProxyRecipe,
    proxy: Proxy,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    state: TrainingState,
    seed: int,
    scratch: str,
    inputs: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    """All steps from `state.step` on; `state.losses` holds loss and accuracy of the steps since the last line."""
    device = proxy.shift.device
    saved = time.monotonic()
    proxy.train()
    for batch in loader.batches(state.step):
        torch.manual_seed(streams.key(seed, "step", batch.step) >> 1)  # patch dropout and the like
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(batch.step, loader.steps, recipe.lr, recipe.warmup)
        if len(batch.images) == 1:
            proxy.eval()  # one sample has no batch statistics; batch norm would refuse it
        labels = torch.from_numpy(batch.tokens[batch.caption]).to(device)
        _, logits = proxy(torch.from_numpy(batch.images).permute(0, 3, 1, 2))
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        state.step += 1
        right = float((logits.detach().argmax(1) == labels).float().mean())
        state.losses += [float(loss.detach()), right]
        if not math.isfinite(state.losses[-2]):
            raise DataError(f"the loss of a proxy is {state.losses[-2]} at step {state.step}; lower its lr")
        last = state.step == loader.steps
        if len(state.losses) >= 2 * LOG_EVERY or last:
            loss_mean, accuracy = (math.fsum(v) / len(v) for v in (state.losses[::2], state.losses[1::2]))
            state.log.append({"step": state.step, "loss": loss_mean, "accuracy": accuracy})
            state.losses = []
        if not last and time.monotonic() - saved >= recipe.checkpoint_every_s:
            state.corrupt = sorted({*state.corrupt, *loader.corrupt})
            checkpoint.save_state(scratch, inputs, state, proxy, optimizer)
            saved = time.monotonic()
        if progress:
            progress(loader.samples_seen_after(state.step), loader.samples_seen)


def load_proxy(path: str, model: str, classes: int, device: str = "auto") -> Proxy:
    """A trained proxy, in evaluation mode.

    Raises:
        DataError: the file does not hold a proxy of that kind.
    """
    import pickle

    from ...shards import storage

    proxy = Proxy(resolve_model(model), classes, seed=0)
    try:
        proxy.load_state_dict(torch.load(storage.local(path), map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"cannot read the proxy {path}: {str(error).splitlines()[0]}") from error
    return proxy.to(pick_device(device)).eval().requires_grad_(False)


def adamw(model: nn.Module, recipe: ProxyRecipe) -> torch.optim.AdamW:
    """AdamW with the numbers of a short training's options: two groups, all at one rate; see `decays`."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if decays(name, p)], "weight_decay": recipe.weight_decay},
        {"params": [p for name, p in named if not decays(name, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, fused=True)
