"""What a real run would tell of its subsets, for the sample report: overlaps, quotas, leaks, repeats, close calls.

Not a test; the report's tests load it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from curate.eval.report.data import (
    FilterFacts,
    Gallery,
    Group,
    Leakage,
    LeakSet,
    Overlap,
    Pair,
    Quotas,
    Report,
)

HOSTILE = "</td><script>window.pwned=1</script>"


def overlap_of(names: list[str], kept: list[int], pool: int) -> Overlap:
    """Subsets whose rows are the first ones of permutations of the pool."""
    rng = np.random.Generator(np.random.Philox(key=5))
    inside = np.zeros((len(names), pool), np.int64)
    for i, n in enumerate(kept):
        inside[i, rng.permutation(pool)[:n] if i % 3 else np.arange(n)] = 1
    return Overlap(names, (inside @ inside.T).tolist())


def many_subsets(n: int) -> Overlap:
    """As many subsets as a study has, with names long, short and hostile."""
    names = [f"strategy_{i:02d}_with_a_long_name" if i % 4 else f"s{i}" for i in range(n)]
    names[1] = HOSTILE
    return overlap_of(names, [4000 * (i + 1) // (2 * n) for i in range(n - 1)] + [0], 4000)


def _near(gallery: Gallery) -> Gallery:
    just = {"just_dropped": list(gallery.dropped)[:6], "just_kept": list(gallery.kept)[:6]}
    pairs = []
    if "dedup" in gallery.filter:
        just = {}
        pairs = [Pair(d, k) for d, k in zip(gallery.dropped[:5], gallery.kept[:5], strict=False)]
    return dataclasses.replace(gallery, **just, pairs=pairs)


def with_subsets(report: Report) -> Report:
    """The report with everything that it can show of subsets."""
    kept = {f.subset: f.kept for f in report.funnels}
    steps = {(f.subset, s.label): s for f in report.funnels for s in f.steps}
    funnels = list(report.funnels)
    last = funnels[-1]
    once, twice = last.kept // 2, last.kept // 4
    more = last.kept - once - twice
    times = {1: once, 2: twice, 5: more - 1, 40: 1}
    samples = sum(t * n for t, n in times.items())
    funnels[-1] = dataclasses.replace(last, repeats=times, samples=samples)
    galleries = [g if g.filter in ("basic", "random") else _near(g) for g in report.galleries]
    concept, decontaminate = steps["curated", "concept_clusters"], steps["curated", "exact_dedup"]
    few = [Group(name, 40 * (i + 1), 40 if i else 0) for i, name in enumerate(("en", "de", "", HOSTILE))]
    entered = concept.entered
    many = [Group(f"concept {j}", entered // 60, min(entered // 60, j % 17)) for j in range(60)]
    long: dict[str, Any] = {"sql": "score > 0.3 and " * 80, "rules": [{"on": "image", "dropped": 3}], "nothing": None}
    return dataclasses.replace(
        report,
        funnels=funnels,
        galleries=galleries,
        overlap=overlap_of(list(kept), list(kept.values()), report.pool.rows if report.pool else 0),
        filter_facts=[
            FilterFacts("clip_top", "top_fraction", "top_fraction", "by dfn_score, keep 0.3", {"threshold": 0.31}),
            FilterFacts("curated", "basic", "basic", "languages en", {"rules": {"words": 3}, HOSTILE: HOSTILE}),
            FilterFacts("curated", "exact_dedup", "exact_dedup", "on image", long, also=["random", "clip_top"]),
            FilterFacts(
                "curated",
                "top_fraction",
                "top_fraction",
                "by dfn_score, keep auto",
                {"column": "dfn_score", "threshold": 0.2874},
                "auto keeps 900 of 2,250 rows (40.0 %) for a training of 3,600 samples: each is seen 4.0 times.",
            ),
        ],
        quotas=[
            Quotas("clip_top", "top_fraction", "language", few),
            Quotas("curated", "concept_clusters", "cluster", many, 12),
        ],
        leakage=[
            Leakage(
                "curated",
                "exact_dedup",
                [
                    LeakSet("digits", "test", 450, 3, 5),
                    LeakSet(HOSTILE, "", 1_000_000, 0, 0),
                    LeakSet("wds_imagenet1k", "test", None, None, None),
                ],
                decontaminate.dropped,
                decontaminate.entered,
                {"radius": 4, "matched_by": {"sha256": 2, "hash": 3}},
            )
        ],
    )
