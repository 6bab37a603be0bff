"""Several finished runs side by side: what `curate compare` draws, as one small JSON.

`compare_models(models, control)` reads the folders that `evaluate` wrote, and never averages over things that were
measured differently: another set, other templates, options or versions make another *measure*, and `differs` says
which. Values are rounded to 6 decimals, other numbers to 5; everything is strict JSON (null, never NaN); the same
inputs give the same bytes. Twenty runs of one arm with three seeds on forty tasks are 0.7 MB, with two arms 1.2 MB:
tables of classes and pairs are cut to what a page can show (`shown` < `of` says so), values of models are not. All
numbers `low`, `high` are 95 % intervals.

Indices: `m` = place in "models", `a` = place in "arms", `q` = place in "protocols"; a measure's id is a string.
Arrays "per model" have one entry per model in order, "per arm" one per arm; null = not measured.

```
{"format": "curate-compare-1", "level": 0.95,
 "control": a,                                       the arm that "paired" compares with
 "models": [{"name": "run/subset seed 0", "run", "subset", "seed": int | null, "arm": a, "digest": weights,
             "facts": {"samples_seen": 1280, "unique_images": 900, "parameters": ..., "cost": ..., "recipe": "clip"}}],
 "arms":   [{"name": "subset" or "run/subset", "run", "subset", "models": [m...],
             "facts": {}}],                          numbers: mean over seeds; texts: where all seeds agree
 "axes":   [{"id": "samples_seen", "label": "samples seen", "log": true}],    numeric facts, for scatter plots
 "protocols": [{"dataset", "suite", "type", "task", "kind", "language", "split", "version", "options": {},
             "dataset_digest", "text_hash", "n", "classes", "chance", "main_metric",
             "templates": [first few], "facts": {}, "tags": ["classification", "zero_shot", "DataComp", ...]}],
 "measures": [{"id": "cifar10|zero_shot|acc1", "protocol": q, "dataset", "suite", "metric",
             "label": "cifar10, zero-shot top-1", "main": true, "higher_is_better": true, "unit": "fraction" | "number",
             "n", "chance": only of the main metric, "interval": "wilson" | "bca" | "normal" | "bootstrap" | ... | null,
             "note": only where stored rows and record disagree}],
             a second protocol of the same dataset and suite has ids that end in "#2"
 "differs": [{"dataset", "suite", "protocols": [q, q], "what": ["templates or class names"], "sentence"}],
 "values": {measure: [[value, low, high] | null per model]},      low, high: other test images; null without outcomes
 "arm_values": {measure: [[mean, low, high, seeds] | null per arm]},   low, high: other seeds (t); one seed: as above
 "paired": {measure: [{"difference", "low", "high", "p", "p_holm", "basis": "seeds" | "samples", "seeds": n,
             "samples": [low, high] | null,          other images alone (these two: left out on very large pages)
             "both": [low, high] | null,             other seeds and other images
             "wins", "losses",                       images that only one got right, all seeds; null unless 0/1 outcomes
             "detectable": smallest difference that this comparison would have found} | null per arm]},
 "pairs": {measure: [[a, b, difference, low, high]...]} main measures; a < b, arm a minus arm b; {} if too many
 "family": {"tests": 12, "sentence": "..."},         about p_holm: how many comparisons, and what follows
 "chance": {measure: [["above" | "below" | "like", p] | null per model]},       main accuracies only
 "ranks": {"measures": {measure: [{"place", "rank", "low", "high", "best": true} | null per arm]},  rank: ties share one
           "rule": "...",
           "overall": {"measures": [ids], "complete": [a...],
                       "arms": [{"mean_rank", "low", "high", "win_rate", "best_share"} | null per arm],
                       "tau": [mean, 5 % quantile] | null}},     of the order by mean, when tasks are drawn again
 "per_class": {q: {"classes": [names], "n": [...], "shown", "of": 1000, "arms": [[recall per class] | null per arm]}},
 "confusion": {q: {"names": [...], "arms": [[[true, predicted, count]...] | null per arm]}},   numbers of "names"
 "groups": {q: {field: {"names": [...], "n": [...], "metric",
             "arms": [[[value, low, high] per group] | null per arm]}}},
 "aggregates": [{"name": "DataComp average of 38", "measures": [ids], "models": [value | null per model],
                 "arms": [[mean, low, high, seeds] | null per arm], "missing": [names]}],
 "robustness": [{"reference": measure, "shifted": measure, "scale": "logit", "slope", "intercept", "baselines": [m...],
                 "range": [low, high], "sentence",
                 "models": [{"expected", "residual", "low", "high", "in_fit"} | null per model]}]}
```
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ...errors import DataError
from ...registry import unknown
from . import run_tables
from .ranks import TIES, rank_over_tasks
from .robustness import Scale
from .run_measures import (
    Evaluated,
    Protocol,
    Results,
    describe_measure,
    describe_protocol,
    differs,
    protocols,
    read_results,
)
from .run_values import ArmModels, Measured, Pairs, arm_values, chance_tests, measured, paired_with
from .statistics import LEVEL, family_sentence, holm

FORMAT = "curate-compare-1"
DIGITS = 5
DIGITS_OF_VALUES = 6
MOST_VALUES = 8_000
"""Models times measures; beyond, intervals of single models are told of main measures only."""
MOST_PAIRS = 5_000
"""Pairs of arms times main measures; beyond, only comparisons with the control are told."""
MOST_COMPARED = 1_500
"""Arms times measures up to which other metrics than the main ones are compared with the control too."""


@dataclass
class Comparison:
    """Several runs side by side; the fields are those of the JSON above."""

    control: int | None
    models: list[dict[str, Any]]
    arms: list[dict[str, Any]]
    axes: list[dict[str, Any]]
    protocols: list[dict[str, Any]]
    measures: list[dict[str, Any]] = field(default_factory=list)
    differs: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    arm_values: dict[str, Any] = field(default_factory=dict)
    paired: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, Any] = field(default_factory=dict)
    family: dict[str, Any] = field(default_factory=dict)
    chance: dict[str, Any] = field(default_factory=dict)
    ranks: dict[str, Any] = field(default_factory=dict)
    per_class: dict[str, Any] = field(default_factory=dict)
    confusion: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    aggregates: list[dict[str, Any]] = field(default_factory=list)
    robustness: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Strict JSON with rounded numbers."""
        told = {
            name: _rounded(value, DIGITS_OF_VALUES if name in ("values", "arm_values", "aggregates") else DIGITS)
            for name, value in asdict(self).items()
        }
        return {"format": FORMAT, "level": LEVEL, **told}


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, dict):
        return {str(k): _rounded(v, digits) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v, digits) for v in value]
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            return None
        # small p-values and large costs keep their leading digits
        return round(float(value), digits) if abs(value) >= 1e-3 else float(f"{value:.3g}")
    return int(value) if isinstance(value, np.integer) else value


def compare_models(
    models: Sequence[Evaluated],
    control: str | None = None,
    baselines: Sequence[str] | None = None,
    shifts: Mapping[str, Sequence[str]] | None = None,
    scale: Scale = "logit",
) -> Comparison:
    """Compare finished evaluations of one or several runs.

    Args:
        models: in the order in which they are to be shown; all of one (run, subset) are seeds of one arm.
        control: name of the arm to compare with (``subset``, or ``run/subset`` with several runs); default: the first.
        baselines: names of arms whose models make the line of effective robustness; default: all.
        shifts: reference set -> its shifted versions; default: DataComp's.

    Raises:
        DataError: no models, results are missing, a seed comes twice, no such arm, or two models' stored rows are of
            different samples although they claim the same set.
    """
    if not models:
        raise DataError("there is no finished evaluation to compare")
    results = [read_results(model) for model in models]
    arms = _arms(models)
    chosen = _named_arm(arms, control) if control is not None else 0
    arm_of = {m: a for a, arm in enumerate(arms) for m in arm.models.values()}
    found = protocols(results, [arms[arm_of[m]].name for m in range(len(models))])
    names = [model.name for model in models]
    comparison = Comparison(
        chosen,
        [_model(one, arm_of[m]) for m, one in enumerate(results)],
        [_arm(arm, models) for arm in arms],
        [],
        [describe_protocol(p, results) for p in found],
        differs=differs(found, names),
    )
    comparison.axes = _axes(comparison.arms)
    measures = _measure_all(comparison, found, arms, chosen)
    _adjust(comparison)
    _rank_overall(comparison, found)
    comparison.per_class = run_tables.per_class(found, arms)
    comparison.confusion = run_tables.confusion(found, arms)
    comparison.groups = run_tables.groups(found, arms)
    comparison.aggregates = run_tables.aggregates(results, found, arms)
    fitted = None if baselines is None else [m for b in baselines for m in arms[_named_arm(arms, b)].models.values()]
    comparison.robustness = run_tables.robustness(found, measures, names, fitted, shifts, scale)
    return comparison


def _arms(models: Sequence[Evaluated]) -> list[ArmModels]:
    several = len({model.run for model in models}) > 1
    found: dict[tuple[str, str], dict[int, int]] = {}
    for place, model in enumerate(models):
        seeds = found.setdefault((model.run, model.subset), {})
        if (model.seed or 0) in seeds:
            raise DataError(f"{model.name} is given twice; name each finished run once")
        seeds[model.seed or 0] = place
    return [ArmModels(f"{run}/{subset}" if several else subset, seeds) for (run, subset), seeds in found.items()]


def _named_arm(arms: Sequence[ArmModels], name: str) -> int:
    known = [arm.name for arm in arms]
    if name not in known:
        raise DataError(unknown("arm", name, known))
    return known.index(name)


def _model(one: Results, arm: int) -> dict[str, Any]:
    model = one.model
    return {
        "name": model.name,
        "run": model.run,
        "subset": model.subset,
        "seed": model.seed,
        "arm": arm,
        "digest": one.value.get("encoder", {}).get("digest"),
        "facts": dict(model.facts),
    }


def _arm(arm: ArmModels, models: Sequence[Evaluated]) -> dict[str, Any]:
    mine = [models[m] for m in arm.models.values()]
    facts: dict[str, Any] = {}
    for name in dict.fromkeys(name for model in mine for name in model.facts):
        values = [model.facts.get(name) for model in mine]
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) == len(values):
            facts[name] = numbers[0] if len(set(numbers)) == 1 else math.fsum(numbers) / len(numbers)
        elif len(set(values)) == 1:
            facts[name] = values[0]
    first = mine[0]
    return {
        "name": arm.name,
        "run": first.run,
        "subset": first.subset,
        "models": list(arm.models.values()),
        "facts": facts,
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _axes(arms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Facts that are numbers of two arms at least, for scatter plots."""
    names = dict.fromkeys(name for arm in arms for name in arm["facts"])
    found = []
    for name in names:
        values = [arm["facts"][name] for arm in arms if _is_number(arm["facts"].get(name))]
        if len(values) > 1 or (values and len(arms) == 1):
            found.append({"id": name, "label": name.replace("_", " "), "log": min(values) > 0})
    return found


def _measure_all(
    comparison: Comparison, found: Sequence[Protocol], arms: Sequence[ArmModels], control: int
) -> dict[str, Measured]:
    """Fill in all that is per measure; returns the main measures without their rows."""
    models = len(comparison.models)
    mains = sum(p.main is not None for p in found)
    with_pairs = mains * len(arms) * (len(arms) - 1) // 2 <= MOST_PAIRS
    measures = sum(len(p.metrics) for p in found)
    with_all = len(arms) * measures <= MOST_COMPARED
    with_intervals = models * measures <= MOST_VALUES
    kept = {}
    ranked: dict[str, Any] = {}
    for protocol in found:
        tables = protocol.tables()
        for metric in protocol.metrics:
            main = protocol.measure(metric) == protocol.main
            one = measured(protocol, tables, metric, full=main)
            if not (main or with_intervals):
                one.intervals, one.kind = {}, None
            entry = describe_measure(protocol, metric, one.kind)
            comparison.measures.append(entry | ({"note": one.note} if one.note else {}))
            comparison.values[one.id] = one.per_model(models)
            comparison.arm_values[one.id] = arm_values(one, arms)
            if main or with_all:
                comparison.paired[one.id] = told = paired_with(one, arms, control)
                for test in told if not with_intervals else ():
                    if test:
                        del test["samples"], test["both"]
            if not main:
                continue
            tested = chance_tests(one, metric, protocol.record["chance"], protocol.record["n"], models)
            if tested:
                comparison.chance[one.id] = tested
            pairs = Pairs(one, arms)
            ranked[one.id] = pairs.ranks()
            if with_pairs:
                comparison.pairs[one.id] = pairs.all()
            one.rows = {}
            kept[one.id] = one
    comparison.ranks = {"measures": ranked, "rule": TIES, "overall": None}
    return kept


def _adjust(comparison: Comparison) -> None:
    """Holm's adjustment over every comparison of a main measure with the control: that is what a reader picks from."""
    mains = {m["id"] for m in comparison.measures if m["main"]}
    tests = [t for name, told in comparison.paired.items() if name in mains for t in told if t and t["p"] is not None]
    for test, adjusted in zip(tests, holm([t["p"] for t in tests]), strict=True):
        test["p_holm"] = adjusted
    comparison.family = {"tests": len(tests), "sentence": family_sentence(len(tests))}


def _rank_overall(comparison: Comparison, found: Sequence[Protocol]) -> None:
    """Mean ranks and win rates over the main measures that most arms have, of the arms that have them all."""
    means = {p.main: comparison.arm_values[p.main] for p in found if p.main}
    arms = len(comparison.arms)
    common = [name for name, values in means.items() if sum(v is not None for v in values) * 2 > arms]
    complete = [a for a in range(arms) if all(means[name][a] is not None for name in common)]
    if not common or len(complete) < 2:
        return
    signs = {m["id"]: 1 if m["higher_is_better"] else -1 for m in comparison.measures}
    values = np.array([[signs[name] * means[name][a][0] for name in common] for a in complete])
    ranking = rank_over_tasks(values)
    told: list[dict[str, Any] | None] = [None] * arms
    for a, one in zip(complete, ranking.arms, strict=True):
        low, high = one.interval or (None, None)
        told[a] = {
            "mean_rank": one.mean_rank,
            "low": low,
            "high": high,
            "win_rate": one.win_rate,
            "best_share": one.best_share,
        }
    comparison.ranks["overall"] = {
        "measures": common,
        "complete": complete,
        "arms": told,
        "tau": list(ranking.tau) if ranking.tau else None,
    }


__all__ = ["Comparison", "Evaluated", "compare_models"]
