"""Who is best, as far as that can be told: ranks with ties, their intervals, and averages of ranks over tasks.

Neighbours on a leaderboard often cannot be told apart (a task bootstrap of the ten best of MTEB separated no adjacent
pair), so arms share a rank until a *paired* interval says otherwise. `TIES` is the rule, in words for the page.

Ranks over several tasks answer another question and have another chance: would other tasks of this kind give the same
order? There tasks are drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .statistics import LEVEL, Interval

DRAWS = 2_000
_EQUAL = 1e-12

TIES = (
    "Arms are listed by their mean. The first of a group is its best; the arms after it share its rank as long as the "
    "95 % interval of the paired difference from that best includes 0. The first arm that differs opens the next group."
)


def tie_groups(values: Sequence[float], told_apart: Callable[[int, int], bool]) -> list[int]:
    """Rank of each arm, 1 = best, by the rule in `TIES`; a group's rank is the place of its best.

    Groups are runs of the list, so nobody ranks behind an arm with a lower mean. Arms of one group need not be equal to
    each other, only to its best.

    Args:
        values: mean of each arm, higher is better; equal ones keep their order.
        told_apart: whether the paired interval of (best, other) excludes 0; False where there is none.
    """
    order = sorted(range(len(values)), key=lambda i: -values[i])
    rank = [0] * len(values)
    best, place = -1, 0
    for position, arm in enumerate(order, start=1):
        if best < 0 or told_apart(best, arm):
            best, place = arm, position
        rank[arm] = place
    return rank


def places(values: np.ndarray) -> np.ndarray:
    """Places ``(..., arms)`` along the last axis, 1 = highest; equal values share the mean of their places."""
    higher = (values[..., None, :] > values[..., :, None] + _EQUAL).sum(-1)
    equal = (np.abs(values[..., None, :] - values[..., :, None]) <= _EQUAL).sum(-1)
    return higher + (equal + 1) / 2


def rank_intervals(
    values: np.ndarray, covariance: np.ndarray, seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> list[Interval]:
    """Interval of each arm's place when test samples (and seeds) are drawn again.

    A parametric bootstrap: values are drawn from the normal distribution with the estimates' covariance, which is that
    of a bootstrap over samples for all but very small sets, and costs the same for 700 and for 50,000 images.

    Args:
        values: ``(arms,)``, higher is better.
        covariance: ``(arms, arms)`` of the estimates (`compare.covariance`), seeds' variance added on the diagonal.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    share, direction = np.linalg.eigh(covariance)
    root = direction * np.sqrt(np.maximum(share, 0.0))
    drawn = values + rng.standard_normal((draws, len(values))) @ root.T
    return _ends(places(drawn), level)


def _ends(drawn: np.ndarray, level: float) -> list[Interval]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0, method="nearest")
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


@dataclass(frozen=True)
class Overall:
    """One arm over a chosen set of tasks.

    Attributes:
        mean: of its values.
        mean_rank: of its places in the tasks; equal values share the mean of their places.
        interval: 95 %, of the mean rank when tasks are drawn again; None for one task.
        win_rate: HELM's mean win rate: share of the other arms that it beats, mean over tasks; ties count half; None
            without another arm.
        best_share: how often it has the highest mean when tasks are drawn again; None for one task.
    """

    mean: float
    mean_rank: float
    interval: Interval | None
    win_rate: float | None
    best_share: float | None


@dataclass(frozen=True)
class Ranking:
    """All arms over a chosen set of tasks.

    Attributes:
        arms: in the order of the input.
        tau: Kendall's tau-b between the order by mean and that of tasks drawn again: its mean, and the value that 5 %
            of draws stay below; None for one task or one arm. Near 1: the order does not hang on the choice of tasks.
    """

    arms: list[Overall]
    tau: tuple[float, float] | None


def rank_over_tasks(values: np.ndarray, seed: int = 0, draws: int = DRAWS, level: float = LEVEL) -> Ranking:
    """Mean rank, mean win rate and how stable the order is.

    Args:
        values: ``(arms, tasks)``, higher is better, complete: an arm without one of the tasks cannot be averaged.
    """
    arms, tasks = values.shape
    place = places(values.T).T
    mean, mean_rank = values.mean(1), place.mean(1)
    wins = (arms - mean_rank) / (arms - 1) if arms > 1 else None
    ends, best, tau = None, None, None
    if tasks > 1:
        rng = np.random.Generator(np.random.Philox(key=seed))
        counts = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=draws) / tasks
        drawn = counts @ values.T
        ends = _ends(counts @ place.T, level)
        first = places(drawn) == places(drawn).min(1, keepdims=True)
        best = (first / first.sum(1, keepdims=True)).mean(0)
        if arms > 1:
            agreement = kendall_tau(mean, drawn)
            tau = float(agreement.mean()), float(np.quantile(agreement, 0.05))
    found = [
        Overall(
            float(mean[i]),
            float(mean_rank[i]),
            ends[i] if ends else None,
            float(wins[i]) if wins is not None else None,
            float(best[i]) if best is not None else None,
        )
        for i in range(arms)
    ]
    return Ranking(found, tau)


def kendall_tau(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Kendall's tau-b ``(draws,)`` of one order ``(arms,)`` and many ``(draws, arms)``; 0 where all are equal."""
    i, j = np.triu_indices(len(values), 1)
    one = _signs(values[i] - values[j])
    found = np.empty(len(others))
    block = max(1, 1_000_000 // max(1, len(i)))
    for start in range(0, len(others), block):
        many = _signs(others[start : start + block, i] - others[start : start + block, j])
        norm = np.sqrt(np.square(one).sum() * np.square(many).sum(1))
        found[start : start + block] = np.divide(many @ one, norm, out=np.zeros(len(many)), where=norm > 0)
    return found


def _signs(differences: np.ndarray) -> np.ndarray:
    return np.where(np.abs(differences) <= _EQUAL, 0.0, np.sign(differences))
