"""Planning of a sweep: each point's subset, cut to its size, its training and its evaluation.

A size is one more filter at the end of the subset's own: `random` with one seed for all sizes, which keeps the rows
with the smallest keyed hashes, so a smaller size is part of a larger one, on any number of workers. A point whose
training the run has anyway, such as the whole subset at the main budget, is that stage and costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..filters.random import Random
from .config import Config
from .stage import Stage
from .stages.filtering import FilterStage, SubsetStage
from .stages.training import PretrainStage
from .sweep_config import SWEEP, SweepPoint

if TYPE_CHECKING:
    from .planner import Planner

CUT = "size"  # label of the filter that cuts a subset to a size


def plan_sweep(planner: Planner) -> dict[str, Stage]:
    """Plan all points; the stages by their roles in the report, ``sweep-subset/NAME``, ``sweep-pretrain/NAME``..."""
    roles: dict[str, Stage] = {}
    for point in planner.config.sweep_points():
        name = f"{point.subset}/{point.name}"
        with planner.at_budget(point.samples_seen):
            subset = _cut(planner, point, f"{SWEEP}/{name}")
        trained = planner.pretrain(
            point.subset,
            name=f"{SWEEP}/{name}/pretrain",
            made=subset,
            model=point.model,
            samples_seen=point.samples_seen,
        )
        roles |= {f"{SWEEP}-subset/{name}": subset, f"{SWEEP}-pretrain/{name}": trained}
        if planner.config.eval:
            roles[f"{SWEEP}-eval/{name}"] = planner.evaluations.of_training(
                point.subset, trained, f"{SWEEP}/{name}/eval"
            )
    return roles


def sweep_line(config: Config, stages: Sequence[Stage]) -> str:
    """What the sweep adds, in a line; nothing without one."""
    points = config.sweep_points()
    if not points or config.pretrain is None:
        return ""
    own = [s for s in stages if isinstance(s, PretrainStage) and s.name.startswith(f"{SWEEP}/")]
    seen = sum(s.training.samples_seen * s.seeds for s in own)
    swept, seeds = config.swept_subsets(), config.pretrain.seeds
    told = f"sweep: {len(points)} points ({', '.join(swept)}), {'one seed' if seeds == 1 else f'{seeds} seeds'} each"
    return f"{told}; {len(points) - len(own)} are trainings of the run anyway, the others see {seen:,} samples"


def _cut(planner: Planner, point: SweepPoint, name: str) -> SubsetStage:
    """The subset as the point's budget makes it, cut to the point's size."""
    whole, chain = planner.subset_and_chain(point.subset)
    if point.whole:
        return whole
    assert planner.config.pretrain is not None
    assert planner.config.pretrain.sweep is not None
    seed = planner.config.pretrain.sweep.seed
    size = {"count": point.count} if point.share is None else {"fraction": point.share}
    inputs: dict[str, Stage] = {"pool": planner.pool}
    if chain:
        inputs["previous"] = chain[-1]
    option = Random.model_validate({**size, "seed": seed})
    cut = planner.add(FilterStage(f"{name}/{CUT}", inputs, filter=option, seed=planner.config.seed))
    filters: dict[str, Stage] = {f"filter/{i:02d}": stage for i, stage in enumerate([*chain, cut])}
    return planner.add(SubsetStage(f"{name}/subset", {"pool": planner.pool, **filters}, labels=(*whole.labels, CUT)))


__all__ = ["CUT", "SWEEP", "plan_sweep", "sweep_line"]
