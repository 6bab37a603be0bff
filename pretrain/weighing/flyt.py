"""FLYT and M-FLYT: learn what a sample is worth from what a step on it does to a downstream task.

Every step weighs a batch of pairs by a softmax over scores, moves a reference model one step on the weighted batch,
asks a labelled batch whether that helped, and sends the answer back to whatever made the scores: one weight per score
column (`Linear`, M-FLYT) or a head on frozen embeddings (`ScoringHead`, FLYT). The mathematics are in
`second_order.py`, the batches in `flyt_data.py`. A training can be killed at any moment and goes on from its last saved
state to the same bits (one CPU thread).

Decisions that the paper leaves open: the weights start equal; they and the downstream scale share one AdamW without
decay (a softmax has no use for small weights, and decay would shrink them with the number of steps); both rates warm up
and follow a cosine. A reference model that is not updated keeps its weights, but its moments run on.
Source: Shechter et al., "Filter Like You Test", arXiv 2503.08805, NeurIPS 2025.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...errors import DataError
from ...shards import storage
from ...shards.shard import Shard
from .. import streams
from ..data.tokenizer import tokenizer_for
from ..models.architecture import ModelSpec, build, resolve_model
from ..models.encoder_folder import find_encoder
from ..models.towers import Towers
from ..optim.optimizer import decays
from ..optim.schedule import learning_rate
from ..precision import contained, pick_device
from .flyt_data import Labelled, LabelledBatch, Pairs, ReadRows, WeighedBatch
from .flyt_options import FlytTraining
from .flyt_state import FlytState, restore_state, save_state
from .second_order import AdamWState, Downstream, Features, Upstream, look_ahead

if TYPE_CHECKING:
    from ..encoders.encoder import Encoder

LOG_SCALE_RANGE = (2.0, math.log(100))
FIRST_DOWNSTREAM_SCALE = math.log(1 / 0.07)
LOGIT_SCALE = "towers.model.logit_scale"


class Linear(nn.Module):
    """One weight per score column, ``(b, k) -> (b,)``; all 0 at the start, so that every sample weighs the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z @ self.weight


class ScoringHead(nn.Module):
    """SwiGLU over an image's and its caption's embedding: ``w2(silu(w1 h) * w3 h) + bias``, ``(b, 2E) -> (b,)``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, 1)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.w2(F.silu(self.w1(h)) * self.w3(h)).squeeze(-1)


class _Sides(nn.Module):
    """Both towers behind one call: uint8 images ``(b, h, w, 3)``, or token ids, to features."""

    def __init__(self, towers: Towers) -> None:
        super().__init__()
        self.towers = towers

    def forward(self, piece: np.ndarray) -> torch.Tensor:
        if piece.ndim == 2:
            return self.towers.encode_texts(piece)
        return self.towers.encode_images(torch.from_numpy(piece).permute(0, 3, 1, 2))


@dataclass(frozen=True)
class FlytReport:
    """What a training found.

    Attributes:
        scorer: parameters of what makes the scores, by name, float32.
        curve: points of the learning curve: step, upstream_loss, downstream_loss, accuracy.
        samples: different pairs that it could see; corrupt: images of them that could not be decoded.
    """

    scorer: dict[str, np.ndarray]
    curve: list[dict[str, float]]
    samples: int
    steps: int
    corrupt: int
    replaced: int


def train_scorer(
    options: FlytTraining,
    shards: list[Shard],
    read: ReadRows,
    downstream: str,
    make_scorer: Callable[[int], nn.Module],
    seed: int,
    scratch: str,
    inputs: str = "",
    encoder: Encoder | None = None,
    threads: int = 1,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> FlytReport:
    """Learn to score pairs.

    Args:
        shards: where the pairs are.
        read: what the score of a row is made of.
        downstream: folder of the labelled set.
        make_scorer: numbers per row -> module ``(b, d) float32 -> (b,)``.
        seed: of initialisation, rows, order, crops and prompts.
        scratch: folder of the resumable state; call again with the same arguments to go on after a kill.
        inputs: whatever identifies what `read` gives, so that another training's state is refused.
        encoder: model to start from, when the options name one of the config.

    Raises:
        DataError: nothing to train on, a labelled image that cannot be decoded, a loss that is not finite, or the
        scratch folder is another training's.
    """
    spec, model = _reference(options, seed, encoder)
    if "logit_scale" not in dict(model.named_parameters()):
        raise DataError(f"the reference model {spec.name} has no logit scale to train; choose a CLIP model")
    tokenizer = tokenizer_for(spec.tokenizer, spec.config["text_cfg"])
    size = spec.preprocess.size
    loading = (tokenizer, size)
    common = (options.crop_scale, options.cache_mb)
    pairs = Pairs(shards, read, *loading, options.batch_size, options.steps, seed, *common, scratch, inputs)
    labelled = Labelled(downstream, options.split, *loading, options.downstream_batch, seed, *common)
    start = encoder.digest if encoder is not None else _weights_digest(model)
    digest = _digest(options, spec, start, pairs.identity, labelled.identity, inputs, seed)
    place = pick_device(device)
    with contained(threads, place):
        towers = Features(_Sides(Towers(model, spec.preprocess)).to(place))
        state = _fresh(options, towers, make_scorer(pairs.width), seed, place)
        restore_state(scratch, digest, state, place)
        _loop(options, towers, pairs, labelled, state, partial(save_state, scratch, digest, state), progress)
    found = {name: value.detach().cpu().numpy().copy() for name, value in state.scorer.named_parameters()}
    return FlytReport(found, state.curve, pairs.samples, state.step, len(state.corrupt), state.replaced)


def _reference(options: FlytTraining, seed: int, encoder: Encoder | None) -> tuple[ModelSpec, nn.Module]:
    """The reference model before the first step."""
    if encoder is not None:
        return encoder.spec, copy.deepcopy(encoder.model).requires_grad_(True)
    if options.model is None:
        raise DataError(f"the training starts from the encoder {options.encoder!r}, which was not given")
    spec = resolve_model(options.model)
    model = build(spec, seed)
    if options.pretrained is not None:
        import open_clip

        open_clip.load_checkpoint(model, storage.local(find_encoder(options.model, options.pretrained).weights))  # type: ignore[arg-type]
    return spec, model


def _fresh(options: FlytTraining, towers: Features, scorer: nn.Module, seed: int, place: torch.device) -> FlytState:
    parameters = {name: value.detach().clone() for name, value in towers.module.named_parameters()}
    decay = {name: options.weight_decay if decays(name, value) else 0.0 for name, value in parameters.items()}
    reference = AdamWState(parameters, decay, options.beta1, options.beta2, options.eps)
    scorer = scorer.to(place)
    scale = torch.tensor(FIRST_DOWNSTREAM_SCALE, device=place, requires_grad=True)
    optimizer = torch.optim.AdamW(
        [*scorer.parameters(), scale],
        lr=options.lr,
        betas=(options.beta1, options.beta2),
        eps=options.eps,
        weight_decay=0.0,
    )
    return FlytState(reference, scorer, scale, optimizer)


def _loop(
    options: FlytTraining,
    towers: Features,
    pairs: Pairs,
    labelled: Labelled,
    state: FlytState,
    save: Callable[[], None],
    progress: Callable[[int, int], None] | None,
) -> None:
    """All steps from `state.step` on; `state` is kept current."""
    place = state.scale.device
    saved = time.monotonic()
    while state.step < options.steps:
        batch, judged = pairs.batch(state.step), labelled.batch(state.step)
        rate, reference_rate = (
            learning_rate(state.step, options.steps, peak, options.warmup)
            for peak in (options.lr, options.lr_reference)
        )
        state.optimizer.param_groups[0]["lr"] = rate
        log_weights = F.log_softmax(state.scorer(torch.from_numpy(batch.inputs).to(place)), 0)
        found = look_ahead(
            towers,
            LOGIT_SCALE,
            state.reference,
            _upstream(options, batch, place),
            _downstream(options, judged, place),
            log_weights,
            state.scale.detach() if options.downstream_scale == "learned" else None,
            reference_rate,
        )
        state.optimizer.zero_grad()
        found.directional.backward()
        state.scale.grad = found.scale_gradient
        state.optimizer.step()
        if not options.update_reference:
            found.after.parameters = state.reference.parameters
        state.reference = found.after
        with torch.no_grad():
            state.reference.parameters[LOGIT_SCALE].clamp_(*LOG_SCALE_RANGE)
        state.step += 1
        state.replaced += batch.pairs.replaced
        state.corrupt = sorted({*state.corrupt, *pairs.corrupt})
        last = state.step == options.steps
        if last or state.step % options.log_every == 0:
            point = {
                "upstream_loss": float(found.upstream_loss),
                "downstream_loss": float(found.downstream_loss),
                "accuracy": float(found.accuracy),
            }
            _require_finite(point, state)
            state.curve.append({"step": state.step, **point})
        if not last and time.monotonic() - saved >= options.checkpoint_every_s:
            save()
            saved = time.monotonic()
        if progress:
            progress(state.step, options.steps)


def _require_finite(point: dict[str, float], state: FlytState) -> None:
    lost = [name for name, value in point.items() if not math.isfinite(value)]
    if not all(bool(torch.isfinite(p).all()) for p in state.scorer.parameters()):
        lost.append("the learned weights")
    if lost:
        raise DataError(
            f"{lost[0]} stopped being finite by step {state.step}; lower `lr` or `lr_reference`, or lengthen `warmup`"
        )


def _upstream(options: FlytTraining, batch: WeighedBatch, place: torch.device) -> Upstream:
    pairs = batch.pairs
    caption = torch.from_numpy(pairs.caption).to(place)
    return Upstream(_pieces(pairs.images, options), _pieces(pairs.tokens, options), caption)


def _downstream(options: FlytTraining, batch: LabelledBatch, place: torch.device) -> Downstream:
    labels = torch.from_numpy(batch.labels).to(place)
    return Downstream(_pieces(batch.images, options), _pieces(batch.prompts, options), labels)


def _pieces(values: np.ndarray, options: FlytTraining) -> list[np.ndarray]:
    """Evenly sized pieces, so that none is a single sample, which a batch norm would refuse."""
    return np.array_split(values, -(-len(values) // options.micro_batch))


def _weights_digest(model: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in model.named_parameters():
        digest.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(options: FlytTraining, spec: ModelSpec, *parts: str | int) -> str:
    """Of everything that the result depends on."""
    names = {"checkpoint_every_s", "cache_mb", "seeds", "model", "pretrained", "encoder", "downstream"}
    value = [options.model_dump(mode="json", exclude=names), spec.identity, *parts]
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def make_head(seed: int, hidden: int, width: int) -> ScoringHead:
    """A head whose initialisation is a function of the seed; ``hidden`` 0 = as wide as its input."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(streams.key(seed, "head") >> 1)
        return ScoringHead(width, hidden or width)
