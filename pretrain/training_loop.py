"""The steps of one training, and what happens between them: saving, measuring, logging, publishing.

`trainer.train` puts everything together; here it is used. Nothing depends on the clock but *when* the state is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, DataError
from . import streams
from .assembly import Assembly
from .data.batch import Batch
from .data.loader import Loader
from .data.samples import Samples
from .models.locking import stand_still
from .models.token_reduction import kept_patches, shorten
from .objectives.logit_scale import clamp
from .optim.ema import Ema
from .optim.optimizer import build_optimizer, set_rate
from .outputs.export import Finished, checkpoint_value, publish, published
from .outputs.flops import network_flops, peak_flops
from .outputs.log_sinks import LiveLog
from .outputs.loss_record import LossRecord
from .outputs.model_card import CardFacts
from .outputs.speed import SpeedMeter
from .phases import PhasePlan
from .precision import Precision, arithmetic
from .processes.parallel import Wrapped
from .processes.world import World
from .recipe import Recipe
from .state.checkpoint import Checkpoints, TrainingState, agreed
from .state.snapshots import Snapshots
from .state.whole_state import whole
from .step import Step
from .stopping import Stopped, StopRequest
from .validation import Validation

ASK_EVERY = 10  # steps between two questions to all processes whether to save


@dataclass(frozen=True)
class TrainReport:
    """What a training did.

    Attributes:
        steps, samples_seen: done; `samples_seen` is exactly what was asked for.
        samples: per epoch, repeats included; ``distinct`` without repeats.
        epochs: `samples_seen` / `samples`.
        loss: mean over the last logged steps.
        logit_scale: at the end; 1 of a model that compares nothing.
        parameters: of the model; ``trained_parameters`` without locked ones.
        without_caption: selected rows that have no caption (or label) and were left out.
        corrupt: images that could not be decoded; `replaced`: how often another took their place.
        skipped_steps: without a finite gradient, left out.
        validation: the last evaluation on the validation set, if there is one.
        speed: how fast it was; depends on the clock, and stands in no file of the model.
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
    trained_parameters: int
    without_caption: int
    corrupt: int
    replaced: int
    skipped_steps: int = 0
    validation: dict[str, float] | None = None
    speed: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, without `speed`."""
        value = asdict(self)
        del value["speed"]
        return value


class Loop:
    """One training under way."""

    def __init__(
        self,
        recipe: Recipe,
        assembly: Assembly,
        plan: PhasePlan,
        loader: Loader,
        dataset: Samples,
        world: World,
        device: torch.device,
        precision: Precision,
        seed: int,
    ) -> None:
        self.recipe, self.assembly, self.plan, self.loader = recipe, assembly, plan, loader
        self.dataset, self.world, self.device, self.seed = dataset, world, device, seed
        self.precision: Precision = precision
        self.state = TrainingState()
        self.replaced = 0  # by this process since it began

    # --- before the first step

    def prepare(self, saves: Checkpoints, scratch: str, validation: Samples | None) -> None:
        """Bring everything to where the saved state is."""
        recipe, assembly = self.recipe, self.assembly
        network = assembly.network.to(self.device)
        if recipe.compile:
            network.compile()
        self.wrapped = Wrapped(network, self.world, recipe.sharding, self.device, assembly.unreached)
        self.network = self.wrapped.network
        self.optimizer = build_optimizer(self.network, recipe.optimizer, recipe.lr, recipe.weight_decay)
        self.average = Ema(self.network, recipe.ema) if recipe.ema else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")  # type: ignore[attr-defined]
        self.snapshots = Snapshots(scratch, recipe.snapshots, self.plan.samples_seen)
        self.saves = saves
        self.state = saves.restore(self.network, self.optimizer, self.average)
        self.record = LossRecord(recipe.log_every, self.device, self.world)
        notes = self.state.notes
        self.record.restore(notes.get("terms", []), notes.get("pending", []))
        if "scaler" in notes:
            self.scaler.load_state_dict(notes["scaler"])
        self.step = Step(
            self.wrapped,
            assembly.objective,
            self.world,
            self.device,
            lambda: arithmetic(self.device, self.precision),
            self._before_forward,
            reads_text=recipe.reads_captions,
            micro_batch=recipe.micro_batch,
            teachers=assembly.teachers,
            scale_loss=self.scaler.scale,
            learns_text=assembly.learns_text,
        )
        if recipe.micro_batch == 1 and self.world.size == 1 and _has_batch_norm(network):
            raise ConfigError("micro_batch is 1, but batch norm needs two samples at a time; use 2 or more")
        self.validation = None
        if validation is not None:
            self.validation = Validation(validation, assembly, self.step, self.world, recipe.batch_size)
        self.speed = SpeedMeter(
            scratch if self.world.rank == 0 else "",
            None,
            peak_flops(torch.cuda.get_device_name(self.device), self.precision) if self.device.type == "cuda" else None,
            self.world.size,
            torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
        )

    def _before_forward(self, batch: Batch, number: int, piece: slice) -> None:
        """Random layers are a function of (seed, step, piece); so are the patches that a phase leaves out."""
        purpose = () if number == 0 and self.world.rank == 0 else (self.world.rank, number)
        torch.manual_seed(streams.key(self.seed, "step", batch.step, *purpose) >> 1)
        patches = self.assembly.patches
        if patches is None or not self.network.training:
            return
        patches.kept = None
        keep = self.plan.span(batch.step).patch_keep
        if keep < 1:
            height, width = batch.images.shape[1:3]
            count = self.assembly.patch_count((height, width))
            first = batch.first + piece.start
            kept = kept_patches(self.seed, batch.step, first, max(1, piece.stop - piece.start), count, keep)
            patches.kept = None if kept is None else torch.from_numpy(kept).to(self.device)

    # --- the loop

    def loop(
        self,
        request: StopRequest,
        live: LiveLog | None,
        progress: Callable[[int, int], None] | None,
        progress_every_s: float,
    ) -> None:
        """All steps from the state's on."""
        told = _Pacer(progress_every_s)
        steps, budget = self.plan.steps, self.plan.samples_seen
        self._training_mode(True)
        self.speed.start()
        waited = self.loader.wait_s
        for batch in self.loader.batches(self.state.step):
            before = self.plan.samples_before(batch.step)
            seen = self.plan.samples_before(batch.step + 1)
            rate = self.plan.rate(batch.step, self.recipe.schedule, self.recipe.lr, self.recipe.warmup)
            set_rate(self.optimizer, rate)
            if self.speed.flops_per_sample is None and self._countable(batch):
                self.speed.flops_per_sample = self._flops(batch)
            norm = self._one_step(self._shortened(batch))
            self.state.step += 1
            self.replaced += batch.replaced
            waiting, waited = self.loader.wait_s - waited, self.loader.wait_s
            self.speed.step(batch.total, waiting)
            last = self.state.step == steps
            if self.record.count == self.recipe.log_every or last:
                line = self._line(seen, rate, norm)
                if live is not None:
                    live.write("train", line)
                    live.write("speed", {"step": self.state.step, **self.speed.reading(budget - seen)})
            if self.snapshots.due(before, seen) or (last and self.validation):
                self._snapshot(seen, live)
            stopping = request.requested() and not last
            if not last and (stopping or self._time_to_save()):
                self._save()
            if progress and (last or told.due()):
                progress(seen, budget)
            if stopping:
                self.saves.close()
                raise Stopped(seen, budget)

    def _countable(self, batch: Batch) -> bool:
        """Whether a batch tells the operations of every step: not with phases, which differ, nor where weights are
        spread, nor with batch norm and one sample."""
        if len(self.plan.spans) > 1 or self.wrapped.sharded:
            return False
        return len(batch.images) > (1 if _has_batch_norm(self.network) else 0)

    def _flops(self, batch: Batch) -> float:
        """Operations per sample, by the shapes of a batch."""
        tokens = batch.tokens if self.assembly.learns_text and len(batch.tokens) else None
        height, width = batch.images.shape[1:3]
        return network_flops(self.assembly.network, (height, width), len(batch.images), tokens)

    def _one_step(self, batch: Batch) -> torch.Tensor | None:
        """Gradients and a step of the optimizer; returns the gradient's norm if it was needed."""
        single = batch.total < 2 and _has_batch_norm(self.network)
        if single:
            self._training_mode(False)  # one sample has no batch statistics; batch norm would refuse it
        terms = self.step.gradients(batch)
        self.scaler.unscale_(self.optimizer)
        norm = None
        if self.recipe.grad_clip or self.recipe.skip_bad_steps:
            largest = self.recipe.grad_clip or float("inf")
            norm = self.wrapped.clip(largest)
        if self._bad(norm):
            self.record.leave_out(terms)
        else:
            self.scaler.step(self.optimizer)
            clamp(self.network)
            if self.average:
                self.average.after_step(batch.step)
            self.record.add(terms)
        self.scaler.update()
        self.optimizer.zero_grad()
        if single:
            self._training_mode(True)
        return norm

    def _bad(self, norm: torch.Tensor | None) -> bool:
        """Whether the step has to be left out; only asked where the recipe allows it, since asking waits for a GPU."""
        if not self.recipe.skip_bad_steps or norm is None:
            return False
        in_a_row = 0 if bool(torch.isfinite(norm)) else self.state.notes.get("skipped_in_a_row", 0) + 1
        self.state.notes["skipped_in_a_row"] = in_a_row
        if not in_a_row:
            return False
        if in_a_row > self.recipe.skip_bad_steps:
            raise DataError(
                f"{in_a_row} steps in a row, up to step {self.state.step + 1}, had no finite gradient; "
                "lower the recipe's lr, lengthen its warmup or set grad_clip"
            )
        self.state.notes["skipped"] = self.state.notes.get("skipped", 0) + 1
        return True

    def _shortened(self, batch: Batch) -> Batch:
        """The batch with captions as the phase wants them, where that is more than cutting off their ends."""
        span = self.plan.span(batch.step)
        if span.text_length is None or span.text_cut == "truncate" or not len(batch.tokens):
            return batch
        ends = self.assembly.caption_ends(batch.tokens)
        tokens = shorten(batch.tokens, ends, span.text_length, span.text_cut, self.seed, batch.step)
        return replace(batch, tokens=tokens)

    def _training_mode(self, on: bool) -> None:
        self.wrapped.module.train(on)
        if on and getattr(self.recipe, "lock", None):
            stand_still(self.network)

    def _line(self, seen: int, rate: float, norm: torch.Tensor | None) -> dict[str, float]:
        means = self.record.flush(self.state.step, self.plan.steps)
        line = {"step": self.state.step, "samples_seen": seen, **means, "lr": rate}
        if self.recipe.reads_captions:
            line["logit_scale"] = float(whole(self.assembly.network.model.logit_scale.detach()).exp())
        if norm is not None and self.recipe.grad_clip and bool(torch.isfinite(norm)):
            line["grad_norm"] = float(norm)
        self.state.log.append(line)
        return line

    # --- what is kept

    def _time_to_save(self) -> bool:
        if self.world.size == 1:
            return self.saves.due(self.state.step)
        if self.state.step % ASK_EVERY:
            return False
        return agreed(self.saves.due(self.state.step), self.world, self.device)

    def _save(self) -> None:
        names, rows = self.record.saved(self.state.step, self.plan.steps)
        notes = self.state.notes | {"terms": names, "pending": rows}
        if self.scaler.is_enabled():
            notes["scaler"] = self.scaler.state_dict()
        self.state.notes = notes
        self._count_corrupt()
        self.saves.save(self.state, self.network, self.optimizer, self.average)

    def _count_corrupt(self) -> None:
        """Bring together what the processes have met; all do it at the same step."""
        names = _told(self.loader.corrupt, self.world)
        self.state.corrupt = sorted({*self.state.corrupt, *(name for some in names for name in some)})
        self.state.replaced += sum(_told(self.replaced, self.world))
        self.replaced = 0

    def _snapshot(self, seen: int, live: LiveLog | None) -> None:
        """Measure, and keep the weights if their place has come."""
        self.speed.pause()
        if self.validation is not None:
            line = self._measured(seen)
            if live is not None:
                live.write("val", line)
        if self.snapshots.due(self.plan.samples_before(self.state.step - 1), seen):
            made = sorted({*self.state.notes.get("snapshots", []), seen})
            self.state.notes["snapshots"] = made
            kept = self._model_weights(averaged=True)
            if self.world.rank == 0:
                copies = {name: tensor.detach().cpu().clone() for name, tensor in kept.items()}
                epoch = int(seen / len(self.dataset))
                value = checkpoint_value(
                    self.assembly.name, epoch, self.state.step, seen, published(self.assembly, copies)
                )
                self.saves.writer.submit(self.snapshots.job(value, made, self.state.validation))
        self.speed.start()

    def _measured(self, seen: int) -> dict[str, float]:
        """The network on the validation set; the average's weights where there is one."""
        assert self.validation is not None
        self._training_mode(False)
        if self.average:
            with self.average.swapped():
                found = self.validation.measure()
        else:
            found = self.validation.measure()
        self._training_mode(True)
        where = {"epoch": int(seen / len(self.dataset)), "step": self.state.step, "samples_seen": seen}
        line = {**found, **where}
        self.state.validation.append(line)
        return line

    def _model_weights(self, averaged: bool) -> dict[str, torch.Tensor]:
        """The network's weights by its own names; all processes ask, process 0 gets them."""
        keep = self.world.rank == 0
        if averaged and self.average:
            with self.average.swapped():
                return {n: t.clone() for n, t in whole(dict(self.network.state_dict()), keep).items() if keep}
        return whole(dict(self.network.state_dict()), keep)

    # --- the end

    def finish(self, out: str, facts: CardFacts) -> TrainReport:
        """Publish; the report is the same on all processes."""
        state, budget = self.state, self.plan.samples_seen
        losses = [line["loss"] for line in state.log if "loss" in line]
        if not losses:
            raise DataError(f"none of the {state.step} steps had a finite gradient; lower the recipe's lr")
        self.saves.writer.wait()
        trained = self._model_weights(averaged=False)
        weights = self._model_weights(averaged=True) if self.average else trained
        optimizer = None if self.wrapped.sharded else whole(self.optimizer.state_dict())  # as open_clip takes it
        parameters = list(self.network.parameters())
        self._count_corrupt()
        self.world.barrier()
        report = TrainReport(
            steps=state.step,
            samples_seen=budget,
            seed=self.seed,
            samples=len(self.dataset),
            distinct=self.dataset.distinct,
            epochs=budget / len(self.dataset),
            loss=losses[-1],
            logit_scale=state.log[-1].get("logit_scale", 1.0),
            parameters=sum(p.numel() for p in parameters),
            trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            without_caption=self.dataset.without_caption,
            corrupt=len(state.corrupt),
            replaced=state.replaced,
            skipped_steps=state.notes.get("skipped", 0),
            validation=dict(state.validation[-1]) if state.validation else None,
            speed=self.speed.facts(budget),
        )
        if self.world.rank == 0:
            finished = Finished(
                assembly=self.assembly,
                weights=weights,
                trained=trained if self.average else None,
                record={"recipe": self.recipe.described(), **report.to_json()},
                epoch=int(report.epochs),
                step=report.steps,
                samples_seen=budget,
                optimizer=optimizer,
                log=state.log,
                validation=state.validation,
                facts=facts,
                snapshots=self.snapshots,
                made=state.notes.get("snapshots", []),
            )
            publish(out, finished)
        return report


def _told(value: Any, world: World) -> list[Any]:
    """What every process says, by rank; all must say something."""
    if world.size == 1:
        return [value]
    found: list[Any] = [None] * world.size
    torch.distributed.all_gather_object(found, value)
    return found


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


class _Pacer:
    """Says now and then that it is time."""

    def __init__(self, every_s: float) -> None:
        import time

        self._clock, self._every, self._last = time.monotonic, every_s, time.monotonic()

    def due(self) -> bool:
        now = self._clock()
        if now - self._last < self._every:
            return False
        self._last = now
        return True
