"""What a run of the evaluation benchmark cost, by part, picture and text, and what that gives for other mixes."""

from __future__ import annotations

import statistics
from typing import Any

PARTS = ("start", "images", "texts", "metrics", "rest", "exit")
ONCE = ("start", "exit")  # what does not grow with the sets

Run = dict[str, Any]


def medians(runs: list[Run]) -> dict[str, Any]:
    """Of CPU and wall seconds in all and by part; loader processes count as pictures."""

    def part(run: Run, name: str, clock: int) -> float:
        seconds = run["parts"].get(name, [0.0, 0.0])[clock]
        return seconds + (run["children_cpu"] if name == "images" and clock == 0 else 0.0)

    def middle(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    return {
        "cpu_s": middle([r["cpu_s"] for r in runs]),
        "wall_s": middle([r["wall_s"] for r in runs]),
        "peak_bytes": max(r["peak_bytes"] for r in runs),
        "parts": {
            name: {
                "cpu_s": middle([part(r, name, 0) for r in runs]),
                "wall_s": middle([part(r, name, 1) for r in runs]),
            }
            for name in PARTS
        },
    }


def costs(name: str, side: dict[str, Any], told: dict[str, Any], clock: str) -> dict[str, float]:
    """Seconds per thousand pictures and per thousand texts, and of what there is once. What sets share counts once
    here, as often as it is asked for there."""
    parts = {part: values[clock] for part, values in side["parts"].items()}
    distinct = "distinct_" if name == "ours" else ""
    return {
        "once_s": sum(parts[part] for part in ONCE),
        "per_1000_pictures_s": parts["images"] / told[f"{distinct}pictures"] * 1e3,
        "per_1000_texts_s": parts["texts"] / told[f"{distinct}texts"] * 1e3,
        "other_s": parts["metrics"] + parts["rest"],
    }


def projected(found: dict[str, dict[str, float]], told: dict[str, Any]) -> float:
    """Ratio ours / its for other numbers of pictures and texts, from the costs of each and of what there is once
    (metrics, a thousandth of it all, left out)."""

    def total(side: str, distinct: str) -> float:
        cost = found[side]
        pictures, texts = told[f"{distinct}pictures"], told[f"{distinct}texts"]
        each = pictures * cost["per_1000_pictures_s"] + texts * cost["per_1000_texts_s"]
        return cost["once_s"] + each / 1e3

    return round(total("ours", "distinct_") / total("clip_benchmark", ""), 3)


def by_ratio(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ratio ours / its by texts per picture, where sets share neither pictures nor texts; start-up left out."""
    bare = {side: {**cost, "once_s": 0.0} for side, cost in found.items()}

    def ratio(texts: float) -> float:
        return projected(bare, {"pictures": 1, "distinct_pictures": 1, "texts": texts, "distinct_texts": texts})

    return {f"{texts:g} texts per picture": ratio(texts) for texts in (0.1, 0.46, 1, 1.6, 2, 4, 8, 16)}
