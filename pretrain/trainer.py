"""Train one model on one data set: the same inputs and seed give the same bytes, killed and resumed or not.

Here everything is put together: what is trained (`assembly.py`), its batches (`data/loader.py`), the division of the
budget (`phases.py`), the state (`state/checkpoint.py`); `training_loop.py` goes through the steps (`step.py`). Nothing
depends on the clock but *when* the state is saved. Steps since the last save are done again after a kill: at most
`checkpoint_every_s` seconds of work. On one CPU thread and the same number of processes the result is exact to the bit;
another number of either, or a GPU, rounds differently.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from ..errors import ConfigError
from .assembly import assemble
from .data.label_space import LabelSpace
from .data.loader import Loader
from .data.mixed_batch import Mixing
from .data.samples import Samples
from .outputs.log_sinks import LiveLog
from .outputs.model_card import CardFacts, flat
from .phases import plan_phases
from .precision import contained, pick_device, pick_precision
from .processes.world import ALONE, World
from .recipe import Recipe
from .state.checkpoint import Checkpoints
from .state.training_inputs import Inputs
from .stopping import StopRequest
from .training_loop import Loop, TrainReport

__all__ = ["TrainReport", "train"]


def train(
    recipe: Recipe,
    model: str,
    dataset: Samples,
    samples_seen: int,
    seed: int,
    out: str,
    scratch: str,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    device: str = "auto",
    progress_every_s: float = 1.0,
    start: str | None = None,
    world: World = ALONE,
    stop: Callable[[], bool] | None = None,
    validation: Samples | None = None,
    classes: LabelSpace | None = None,
    facts: CardFacts | None = None,
) -> TrainReport:
    """Train and write a model's folder.

    Args:
        recipe: how.
        model: name, JSON or folder, see `models/architecture.py`; or ``timm:NAME`` with a supervised recipe.
        samples_seen: budget, exact; the last batch is smaller if need be.
        seed: of initialisation, order and crops.
        out: folder to write: an encoder folder (`encoder_folder.py`) or a classifier's (`classifier_folder.py`), with
            ``log.jsonl``, ``tensorboard/`` and ``checkpoints/``; its record comes last.
        scratch: folder of the resumable state and of the live log; call again with the same arguments to go on.
        threads: CPU threads of torch; part of what the exact bits depend on.
        progress: called with (samples seen, samples to see), about every `progress_every_s` seconds.
        device: ``auto`` = a GPU if there is one.
        start: encoder folder or checkpoint of the same architecture whose weights are trained further.
        world: this process's place, if several train together; each calls this with the same arguments.
        stop: asked now and then whether to save the state and stop; SIGTERM asks as well.
        validation: samples that the model is measured on at snapshots and at the end.
        classes: of the data set's labels, where the recipe learns labels; default: those that the data set names.
        facts: for the model card.

    Raises:
        ConfigError: unknown model, or something that it cannot do.
        DataError: the loss is not finite, the images are corrupt, or the scratch folder is another training's.
        Stopped: it was asked to stop, and its state is saved.
    """
    sizes = [recipe.batch_size, *(phase.batch_size or recipe.batch_size for phase in recipe.phases)]
    if min(sizes) < world.size:
        raise ConfigError(
            f"batch_size is {min(sizes)}, but {world.size} processes train together: each needs a sample of a step"
        )
    place = pick_device(device)
    settled = pick_precision(recipe.precision, place)
    if recipe.labels is not None:
        classes = classes or (LabelSpace(tuple(dataset.classes)) if len(dataset.classes) else None)
        if classes and tuple(dataset.classes) != classes.names:
            raise ConfigError("the data set was opened with other classes than those that are to be learned")
    assembly = assemble(recipe, model, seed, place, start, classes)
    plan = plan_phases(
        recipe.phases,
        samples_seen,
        recipe.batch_size,
        assembly.preprocess.size,
        assembly.context_length,
        recipe.crop_scale,
    )
    assembly.allow(plan)
    loader = Loader(
        dataset,
        assembly.tokenizer,
        assembly.preprocess.size,
        recipe.batch_size,
        samples_seen,
        seed,
        cache_mb=recipe.cache_mb,
        world=world,
        threads=recipe.threads or int(place.type == "cuda"),
        augment=recipe.augment,
        plan=plan,
        pin=place.type == "cuda",
        mixing=_mixing(recipe, seed),
    )
    described = {"recipe": recipe.described(), "samples_seen": samples_seen, "seed": seed}
    inputs = Inputs({**described, "data": dataset.identity(), **assembly.identity})
    run = Loop(recipe, assembly, plan, loader, dataset, world, place, settled, seed)
    with ExitStack() as stack:
        stack.enter_context(contained(threads, place))
        request = stack.enter_context(StopRequest(stop, together=world.size > 1))
        saves = Checkpoints(
            scratch,
            inputs,
            world,
            recipe.checkpoint_every_s,
            recipe.checkpoint_every_steps,
            recipe.checkpoint_every_s > 0,
        )
        stack.enter_context(saves)
        run.prepare(saves, scratch, validation)
        live = None
        if world.rank == 0:
            options = flat({"model": assembly.name, **described})
            live = stack.enter_context(LiveLog(scratch, recipe.log, run.state.step, f"{assembly.name} {seed}", options))
        run.loop(request, live, progress, progress_every_s)
        return run.finish(out, facts or CardFacts())


def _mixing(recipe: Recipe, seed: int) -> Mixing | None:
    options, labels = recipe.mixes, recipe.labels
    if options is None or labels is None:
        return None
    return Mixing(options, seed, shared=labels.loss is None or labels.loss.type != "multi_label")
