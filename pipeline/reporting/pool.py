"""Pool, funnels and cluster maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from ...eval.report.data import Cluster, ClusterMap, Funnel, FunnelStep, Pool
from ...shards.shard import METADATA, SUCCESS
from ..decisions import read_decision
from ..stages.filtering import FETCH
from .filters import cluster_counts, repeats
from .source import Link, RunData, short_options
from .truth import Truth

EXAMPLES = 3


def pool_section(run: RunData) -> Pool:
    """What came in, and why rows failed."""
    summary = run.pool.summary
    failures = {code: n for code, n in summary["status"].items() if code not in (SUCCESS, METADATA)}
    languages: Counter[str] = Counter()
    column = language_column(run)
    if column is not None:
        for i in range(len(run.shards)):
            languages.update(v for v in run.store.part(i).arrow(column).to_pylist() if v)
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


def language_column(run: RunData) -> str | None:
    """The score that says which language captions are in, if there is one."""
    return next((name for name in run.named("score") if run.config.scores[name].type == "language"), None)


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
        found.append(Funnel(subset, summary["rows"], steps, samples, repeats=repeats(run, subset)))
    return found


def cluster_maps(run: RunData, truth: Truth | None) -> list[ClusterMap]:
    """The clusters of every filter that places them on a map."""
    found = []
    for link in run.distinct_links:
        clusters = link.artifact.summary["facts"].get("clusters", [])
        clusters = [c for c in clusters if isinstance(c, Mapping) and c.get("size")]
        if not clusters or any(c.get(key) is None for c in clusters for key in ("cluster", "x", "y")):
            continue
        counted = cluster_counts(run, link)
        captions, digits = _members(run, link, 1 + max(c["cluster"] for c in clusters), truth)
        placed = [
            Cluster(
                id=c["cluster"],
                x=c["x"],
                y=c["y"],
                size=c["size"] if counted is None else int(counted[0][c["cluster"]]),
                kept=c["kept"] if counted is None else int(counted[1][c["cluster"]]),
                d_intra=c.get("d_intra"),
                d_inter=c.get("d_inter"),
                label=digits[c["cluster"]] or f"{c['cluster']}",
                examples=captions[c["cluster"]],
            )
            for c in clusters
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
        for group in np.unique(groups[(groups >= 0) & (groups < k)]):
            mine = rows[groups == group]
            room = EXAMPLES - len(captions[group])
            captions[group] += [t or "" for t in texts.take(pa.array(mine[:room])).to_pylist()] if room else []
            if truth is not None:
                shown[group].update(truth.of(i).shows[mine].tolist())
    return captions, [c.most_common(1)[0][0] if c else "" for c in shown]
