"""Pool, funnels, score histograms and cluster maps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa

from ...eval.report.data import Cluster, ClusterMap, Funnel, FunnelStep, Histogram, Pool, Split
from ...shards.shard import METADATA, SUCCESS
from ..decisions import read_decision
from ..stages.filtering import FETCH
from .source import Link, RunData, short_options
from .truth import Truth

BINS = 60
EXAMPLES = 3


def pool_section(run: RunData) -> Pool:
    """What came in, and why rows failed."""
    summary = run.pool.summary
    failures = {code: n for code, n in summary["status"].items() if code not in (SUCCESS, METADATA)}
    languages: Counter[str] = Counter()
    for name in run.named("score"):
        if run.config.scores[name].type == "language":
            for i in range(len(run.shards)):
                languages.update(v for v in run.store.part(i).arrow(name).to_pylist() if v)
            break
    sources = {name: facts["rows"] for name, facts in summary["sources"].items()}
    return Pool(
        rows=summary["rows"],
        fetched=summary["usable"],
        failures=failures,
        languages=dict(languages.most_common(12)),
        bytes=summary["bytes"],
        sources=sources if len(sources) > 1 else {},
        copied=summary["copied"],
        animated=summary["animated"],
        damaged=summary["torn"],
    )


def funnels(run: RunData) -> list[Funnel]:
    """One funnel per subset, from all rows of the pool."""
    summary = run.pool.summary
    failures = {code: n for code, n in summary["status"].items() if code not in (SUCCESS, METADATA)}
    found = []
    for subset, chain in run.chains.items():
        steps = [FunnelStep(FETCH, summary["rows"], summary["usable"], failures)]
        for link in chain:
            counts = link.artifact.summary
            steps.append(
                FunnelStep(link.label, counts["entered"], counts["kept"], counts["reasons"], short_options(link.filter))
            )
        samples = run.named("subset")[subset].summary["samples"]
        found.append(Funnel(subset, summary["rows"], steps, samples))
    return found


def histograms(run: RunData, truth: Truth | None) -> list[Histogram]:
    """The distribution of every numeric score over the fetched pool, and where each subset cut it."""
    found = []
    for name in run.named("score"):
        values = [_numbers(run, i, name) for i in range(len(run.shards))]
        if any(v is None for v in values):
            continue
        found_one = _histogram(run, name, [v for v in values if v is not None], truth)
        if found_one:
            found.append(found_one)
    return found


def _numbers(run: RunData, index: int, column: str) -> np.ndarray | None:
    """Values of all rows of a part as float32 (NaN = none), or None when the column holds no numbers."""
    values = run.store.part(index).arrow(column)
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        return None
    return values.cast(pa.float32(), safe=False).to_numpy()


def _histogram(run: RunData, column: str, values: list[np.ndarray], truth: Truth | None) -> Histogram | None:
    finite = [v[np.isfinite(v)] for v in values]
    present = [v for v in finite if len(v)]
    if not present:
        return None
    low, high = min(float(v.min()) for v in present), max(float(v.max()) for v in present)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)

    def count(pieces: list[np.ndarray]) -> list[int]:
        total = np.zeros(BINS, np.int64)
        for piece in pieces:
            total += np.histogram(piece[np.isfinite(piece)], edges)[0]
        return total.tolist()

    fetched = run.pool.summary["usable"]
    histogram = Histogram(column, edges.tolist(), count(values), missing=fetched - sum(map(len, finite)))
    histogram.splits = [s for link in run.distinct_links if (s := _split(run, link, column, values, count))]
    if truth is not None:
        wrong = [truth.of(i).wrong_caption for i in range(len(values))]
        histogram.correct = count([v[~w] for v, w in zip(values, wrong, strict=True)])
        histogram.wrong = count([v[w] for v, w in zip(values, wrong, strict=True)])
    return histogram


def _split(run: RunData, link: Link, column: str, values: list[np.ndarray], count) -> Split | None:
    facts = link.artifact.summary["facts"]
    if facts.get("column") != column:
        return None
    kept, dropped = [], []
    for shard, all_values in zip(run.shards, values, strict=True):
        decision = read_decision(link.artifact.data, shard.name)
        reached = all_values[decision["row"].to_numpy()]
        keep = decision["keep"].to_numpy()
        kept.append(reached[keep])
        dropped.append(reached[~keep])
    bounds = facts.get("bounds") or [facts.get("threshold")]
    thresholds = [float(t) for t in bounds if t is not None]
    return Split(link.subset, thresholds, count(kept), count(dropped))


def cluster_maps(run: RunData, truth: Truth | None) -> list[ClusterMap]:
    """The clusters of every filter that places them on a map."""
    found = []
    for link in run.distinct_links:
        clusters = link.artifact.summary["facts"].get("clusters", [])
        if not clusters or "x" not in clusters[0]:
            continue
        captions, digits = _members(run, link, len(clusters), truth)
        placed = [
            Cluster(
                id=c["cluster"],
                x=c["x"],
                y=c["y"],
                size=c["size"],
                kept=c["kept"],
                d_intra=c["d_intra"],
                d_inter=c["d_inter"],
                label=digits[c["cluster"]] or f"{c['cluster']}",
                examples=captions[c["cluster"]],
            )
            for c in clusters
            if c["size"]
        ]
        label = "label: the digit most often shown, by the truth" if truth else "label: number of the cluster"
        found.append(ClusterMap(link.subset, link.label, placed, label))
    return found


def _members(run: RunData, link: Link, k: int, truth: Truth | None) -> tuple[list[list[str]], list[str]]:
    """A few captions of each cluster, and, when the truth is known, what most of its pictures show."""
    captions: list[list[str]] = [[] for _ in range(k)]
    shown: list[Counter[str]] = [Counter() for _ in range(k)]
    for i, shard in enumerate(run.shards):
        decision = read_decision(link.artifact.data, shard.name)
        if "group" not in decision.column_names:
            continue
        rows, groups = decision["row"].to_numpy(), decision["group"].to_numpy()
        texts = shard.read_table(["caption"])["caption"]
        for group in np.unique(groups[groups >= 0]):
            mine = rows[groups == group]
            room = EXAMPLES - len(captions[group])
            captions[group] += [t or "" for t in texts.take(pa.array(mine[:room])).to_pylist()] if room else []
            if truth is not None:
                shown[group].update(truth.of(i).shows[mine].tolist())
    return captions, [c.most_common(1)[0][0] if c else "" for c in shown]
