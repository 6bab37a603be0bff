"""What a reader of several runs must know before any number, and what a page of them opens with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def chosen_first(comparison: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The measures that a page opens with, and a note if they are not all main ones.

    A mean stands only for arms that have all of its measures, so a page of runs that were not measured alike would open
    without any. It opens with what most arms have; if few arms have all of that, with what every arm has, unless that
    is next to nothing.
    """
    mains = [m["id"] for m in comparison["measures"] if m["main"]]
    values = comparison["arm_values"]
    arms = len(comparison["arms"])
    most = [name for name in mains if 2 * sum(v is not None for v in values[name]) > arms]
    every = [name for name in mains if all(v is not None for v in values[name])]
    complete = sum(all(values[name][a] is not None for name in most) for a in range(arms))
    chosen = most if 2 * complete > arms or 4 * len(every) < len(most) else every
    if not chosen or len(chosen) == len(mains):
        return mains, []
    which = "every arm has" if chosen == every else "most arms have"
    return chosen, [
        f"Not all arms have all measures: the page opens with the {len(chosen)} of {len(mains)} that {which}. The "
        "others are under “Choose tasks”, main metrics."
    ]


def notes_of(comparison: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about a comparison of runs."""
    seeds = max((len(arm["models"]) for arm in comparison["arms"]), default=0)
    if seeds == 2:
        yield (
            "No arm has more than two seeds. Student's t over two reaches 12.7 standard errors to each side, so "
            "intervals may go beyond what is possible; point at a number for what other test images alone would change."
        )
    yield from _differs(comparison)
    if sentence := comparison.get("family", {}).get("sentence"):
        yield sentence


def _differs(comparison: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for all sets on which a suite was measured in the same different ways."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for one in comparison.get("differs", ()):
        ways = tuple(_arms_of(comparison, q) for q in one["protocols"])
        groups.setdefault((one["suite"], tuple(one["what"]), ways), []).append(one)
    for (suite, what, ways), those in groups.items():
        if len(those) == 1:
            yield those[0]["sentence"]
            continue
        sets = ", ".join(one["dataset"] for one in those)
        who = "; ".join(f"{_some(names)} ({place})" for place, names in enumerate(ways, start=1))
        yield (
            f"{suite} was measured in {len(ways)} ways on {len(those)} sets ({sets}). They differ in "
            f"{', '.join(what)}: {who}. These are separate columns and are never averaged or compared."
        )


def _arms_of(comparison: Mapping[str, Any], protocol: int) -> tuple[str, ...]:
    mine = [comparison["arm_values"][m["id"]] for m in comparison["measures"] if m["protocol"] == protocol]
    arms = enumerate(comparison["arms"])
    return tuple(arm["name"] for a, arm in arms if any(values[a] is not None for values in mine))


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
