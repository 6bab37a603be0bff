"""What trainings will do, for `curate plan`: exact steps and samples, and epochs as far as the subset is known."""

from __future__ import annotations

from collections.abc import Sequence

from ..pretrain.datacomp_scales import SCALES, DataCompRecipe, budget_sentence
from ..pretrain.phases import PhasePlan, plan_phases
from .plan_sweep import SWEEP
from .run_folder import RunFolder
from .stage import Stage
from .stages.training import EncoderStage, PretrainStage, Training


def budget_lines(stages: Sequence[Stage], folder: RunFolder) -> list[str]:
    """A line per training (those that do alike share one), and what DataComp's own code would do; a sweep's trainings
    have their line in `plan_sweep.sweep_line`."""
    told: dict[str, list[str]] = {}
    scales: dict[str, None] = {}
    for stage in stages:
        if not isinstance(stage, EncoderStage | PretrainStage) or stage.name.startswith(f"{SWEEP}/"):
            continue
        seeds = f"{stage.seeds} seeds, each " if isinstance(stage, PretrainStage) and stage.seeds > 1 else ""
        told.setdefault(f"{seeds}{_budget(stage.training)}{_epochs(stage, folder)}", []).append(stage.name)
        if scale := _scale(stage.training):
            scales[budget_sentence(scale)] = None
    return [*(f"{', '.join(names)}: {text}" for text, names in told.items()), *scales]


def steps_of(training: Training) -> PhasePlan:
    """The steps of a training; the sizes of its inputs do not matter here."""
    recipe = training.recipe
    return plan_phases(recipe.phases, training.samples_seen, recipe.batch_size, (1, 1), None, recipe.crop_scale)


def _budget(training: Training) -> str:
    plan = steps_of(training)
    runs: list[list[int]] = []  # batch size and number of steps, neighbours of one size together
    for span in plan.spans:
        if runs and runs[-1][0] == span.batch_size:
            runs[-1][1] += span.stop - span.start
        else:
            runs.append([span.batch_size, span.stop - span.start])
    last = plan.batch_size(plan.steps - 1)
    end = f", the last of {last:,}" if last != runs[-1][0] and plan.steps > 1 else ""
    if plan.steps == 1:
        steps = f"1 step of {last:,}"
    elif len(runs) == 1:
        steps = f"{plan.steps:,} steps of {runs[0][0]:,}"
    else:
        steps = f"{plan.steps:,} steps ({', then '.join(f'{count:,} of {size:,}' for size, count in runs)})"
    warmup = training.recipe.warmup
    long = f" (the warm-up of {warmup:,.0f} steps is longer than the run)" if warmup > plan.steps else ""
    return f"{plan.samples_seen:,} samples in {steps}{end}{long}"


def _epochs(stage: EncoderStage | PretrainStage, folder: RunFolder) -> str:
    """How often the samples are seen; empty before they are known."""
    seen, what = float(stage.training.samples_seen), ""
    artifact = folder.artifact(stage)
    source = folder.artifact(stage.inputs["subset" if isinstance(stage, PretrainStage) else "data"])
    if isinstance(stage, PretrainStage) and stage.shares:
        seen *= 1 - sum(stage.shares.values())
        what = " of the subset"
    if artifact.is_done() and not what:
        summary = artifact.summary
        samples = next(iter(summary["seeds"].values()))["samples"] if "seeds" in summary else summary["samples"]
    elif source.is_done():
        samples = source.summary["samples"] if isinstance(stage, PretrainStage) else source.summary["usable"]
    else:
        return ""
    if not samples:
        return ""
    epochs = seen / samples
    often = f"{epochs:,.1f} epochs of {samples:,}" if epochs >= 1 else f"{epochs:.0%} of one epoch of {samples:,}"
    return f"; {often}{what}"


def _scale(training: Training) -> str:
    """The DataComp scale of a training that keeps the scale's batch and budget; else empty."""
    recipe = training.recipe
    if not isinstance(recipe, DataCompRecipe) or recipe.phases:
        return ""
    scale = SCALES[recipe.scale]
    same = (training.samples_seen, recipe.batch_size) == (scale.samples_seen, scale.batch_size)
    return recipe.scale if same else ""


__all__ = ["budget_lines", "steps_of"]
