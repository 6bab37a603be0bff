"""How scores were made: what their scorers say of themselves, and the weights of those that were learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...eval.report.data import Learned, LearningCurve, ScoreFacts, Weight
from ...registry import Options
from .source import RunData

DRAWN = ("learned_by", "weights", "interval", "auc", "curve")
"""Facts of a learned score that have their own place on the page."""


def score_facts(run: RunData, not_drawn: Mapping[str, Mapping[str, str]]) -> list[ScoreFacts]:
    """One entry per score; `not_drawn`: score -> column -> what it holds."""
    found = []
    for name, artifact in run.named("score").items():
        facts = artifact.summary.get("facts", {})
        scorer = run.config.scores[name]
        shown = {} if "learned_by" in facts else facts
        found.append(ScoreFacts(name, scorer.type, options_in_short(scorer), shown, dict(not_drawn.get(name, {}))))
    return found


def options_in_short(options: Options) -> str:
    """Options that differ from their defaults; nested ones in brackets: ``learn logistic (trusted gold)``."""
    told = []
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if name == "type" or value == field.get_default(call_default_factory=True):
            continue
        if isinstance(value, Options):
            inner = options_in_short(value)
            text = " ".join([str(getattr(value, "type", "")), f"({inner})" if inner else ""]).strip()
        elif isinstance(value, Mapping):
            text = ", ".join(f"{k}: {v}" for k, v in value.items())
        elif isinstance(value, list | tuple | set | frozenset):
            text = " ".join(map(str, value))
        else:
            text = str(value)
        told.append(f"{field.alias or name} {text}")
    return ", ".join(told)


def learned_scores(run: RunData) -> list[Learned]:
    """Scores whose facts say how they were learned."""
    facts = {name: artifact.summary.get("facts", {}) for name, artifact in run.named("score").items()}
    return [learned_score(name, told) for name, told in facts.items() if "learned_by" in told]


def learned_score(name: str, facts: Mapping[str, Any]) -> Learned:
    """One learned score, from what its scorer says; what is not known here stays among the facts."""
    weights = [_weight(entry) for entry in facts.get("weights") or []]
    auc, over = facts.get("auc"), ""
    if isinstance(auc, Mapping):
        over = f"over {auc['trusted']:,} trusted and {auc['pool']:,} pool rows that were held out"
        auc = auc["value"]
    return Learned(
        name,
        str(facts["learned_by"]),
        [w for w in weights if w is not None],
        str(facts.get("interval") or ""),
        _curves(facts.get("curve") or []),
        _number(auc),
        over,
        {key: value for key, value in facts.items() if key not in DRAWN},
    )


def _weight(entry: Mapping[str, Any]) -> Weight | None:
    """A weight; None without a number. Half an interval is none."""
    weight, low, high = (_number(entry.get(key)) for key in ("weight", "low", "high"))
    if weight is None:
        return None
    if low is None or high is None:
        low = high = None
    seeds = [float(s) for s in entry.get("seeds") or [] if _number(s) is not None]
    mean, std, auc = (_number(entry.get(key)) for key in ("mean", "std", "auc"))
    return Weight(str(entry["column"]), weight, low, high, mean, std, entry.get("missing"), seeds, auc)


def _curves(told: list[Any]) -> list[LearningCurve]:
    """Learning curves: one per seed, or the points of the only one as ``[step, loss]``."""
    if told and isinstance(told[0], Mapping) and "points" in told[0]:
        return [_curve(int(one["seed"]), [(p["step"], p["downstream_loss"]) for p in one["points"]]) for one in told]
    return [_curve(0, [(p[0], p[1]) for p in told])] if told else []


def _curve(seed: int, points: list[tuple[Any, Any]]) -> LearningCurve:
    known = [(int(step), float(loss)) for step, loss in points if _number(loss) is not None]
    return LearningCurve(seed, [step for step, _ in known], [loss for _, loss in known])


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
