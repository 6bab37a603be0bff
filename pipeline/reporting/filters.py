"""How filters came to their decisions: what they say of themselves, what they kept of each group, what had leaked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ...eval.report.data import FilterFacts, Group, Leakage, LeakSet, Quotas
from ...shards import storage
from ..decisions import read_decision
from .cuts import groups_as_text, number
from .scores import options_in_short
from .source import Link, RunData

GROUPS = 500  # that are shown, the largest
ELSEWHERE = ("clusters", "cuts", "sets")
"""Facts that have their own place on the page."""
NAMES = ("cluster", "group", "name", "concept", "class")
SET_NAMES = {
    "name": ("set", "name", "dataset"),
    "images": ("images", "size"),
    "matched": ("images_in_pool", "matched", "found"),
    "rows": ("pool_rows", "rows", "dropped"),
}
"""What filters call the parts of a leak."""


def filter_facts(run: RunData) -> list[FilterFacts]:
    """One entry per filter, in the order of the config."""
    sharing: dict[str, list[str]] = {}
    for subset, chain in run.chains.items():
        for link in chain:
            sharing.setdefault(link.artifact.path, []).append(subset)
    found = []
    for link in run.distinct_links:
        facts = link.artifact.summary["facts"]
        also = list(dict.fromkeys(s for s in sharing[link.artifact.path] if s != link.subset))
        shown = {k: v for k, v in facts.items() if not (k in ELSEWHERE and isinstance(v, list | Mapping))}
        key = "training_budget" if "training_budget" in facts else "budget"
        budget = budget_sentence(facts.get(key))
        if budget:
            shown.pop(key)
        if isinstance(shown.get("groups"), list | Mapping):
            shown.pop("groups")
        options = options_in_short(link.filter)
        found.append(FilterFacts(link.subset, link.label, link.filter.type, options, shown, budget, also))
    return found


def budget_sentence(told: Any) -> str:
    """What ``keep: auto`` made of the training budget; nothing of a filter that was told how much to keep."""
    if isinstance(told, str):
        return told
    if not isinstance(told, Mapping):
        return ""
    kept, rows, seen, draws = (number(told.get(name)) for name in ("kept", "rows", "samples_seen", "draws"))
    if draws is not None and seen is not None:
        return f"auto draws {draws:,.0f} samples for a training that sees {seen:,.0f}."
    if kept is None or rows is None or seen is None:
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())
    said = f"auto keeps {kept:,.0f} of {rows:,.0f} rows"
    if rows:
        said += f" ({100 * kept / rows:.1f} %)"
    said += f" for a training of {seen:,.0f} samples"
    if (views := number(told.get("views"))) is not None:
        said += f": each is seen {views:.1f} times"
    if (repeats := number(told.get("repeats"))) is not None:
        said += f"; {repeats:g} were asked for"
    limit = told.get("bound")
    return said + (f", the limit {limit!r} decided" if limit in ("least", "most") else "") + "."


def quotas(run: RunData) -> list[Quotas]:
    """What each filter with clusters or groups kept of them, the largest first.

    Counted in the decisions where these tell groups apart, else as the filter says; a filter that says a group keeps
    more rows than it has (counting repeats) is left to its facts.
    """
    found = []
    for link in run.distinct_links:
        for what, groups in _told(run, link):
            ordered = sorted(groups, key=lambda g: (-g.size, g.name))
            if ordered and all(0 <= g.kept <= g.size for g in ordered):
                shown = ordered[:GROUPS]
                found.append(Quotas(link.subset, link.label, what, shown, len(ordered) - len(shown)))
    return found


def _told(run: RunData, link: Link) -> list[tuple[str, list[Group]]]:
    """Kind of group, and the groups that rows reached."""
    facts = link.artifact.summary["facts"]
    counted = cluster_counts(run, link)
    if counted is not None:
        sizes, kept = counted
        clusters = [Group(str(j), int(sizes[j]), int(kept[j])) for j in np.flatnonzero(sizes)]
    else:
        clusters = _groups(facts.get("clusters"))
    found = [("cluster", clusters)]
    grouped = any(isinstance(facts.get(key), list | Mapping) for key in ("groups", "cuts"))
    by = next((facts[key] for key in ("per", "column") if isinstance(facts.get(key), str)), None)
    if grouped and by is not None and _is_column(run, by):
        found.append((by, _counted(run, link, by)))
    elif grouped:
        found.append(("group", _groups(facts.get("groups"))))
    return found


def cluster_counts(run: RunData, link: Link) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows that reached a filter, and that it kept, of each cluster: ``(k,) int64``; None of one without clusters."""
    sizes = kept = np.zeros(0, np.int64)
    clustered = False
    for shard in run.shards:
        table = read_decision(link.artifact.data, shard.name)
        if "group" not in table.column_names:  # a part none of whose rows is in a cluster
            continue
        clustered = True
        group, keep = table["group"].to_numpy(), table["keep"].to_numpy()
        k = max(len(sizes), int(group.max(initial=-1)) + 1)
        sizes, kept = (np.pad(counts, (0, k - len(counts))) for counts in (sizes, kept))
        sizes = sizes + np.bincount(group[group >= 0], minlength=k)
        kept = kept + np.bincount(group[keep & (group >= 0)], minlength=k)
    return (sizes, kept) if clustered else None


def _is_column(run: RunData, column: str) -> bool:
    return run.store.score_of(column) is not None or column in run.shards[0].column_names()


def _groups(told: Any) -> list[Group]:
    """Groups that rows reached, from a list of facts, or from facts by name; what is no such thing is none."""
    entries = list(told.items()) if isinstance(told, Mapping) else list(enumerate(told)) if _is_list(told) else []
    groups = []
    for name, entry in entries:
        if not isinstance(entry, Mapping):
            continue
        size, kept = (number(_first(entry, names)) for names in (("size", "rows"), ("kept", "drawn")))
        if size and kept is not None:
            groups.append(Group(str(_first(entry, NAMES, name)), int(size), int(kept)))
    return groups


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _first(entry: Mapping[str, Any], names: tuple[str, ...], default: Any = None) -> Any:
    """The first of several keys that is there."""
    return next((entry[name] for name in names if name in entry), default)


def _counted(run: RunData, link: Link, per: str) -> list[Group]:
    """Rows and kept rows of every value of a column, from the decisions."""
    rows: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for index, shard in enumerate(run.shards):
        table = read_decision(link.artifact.data, shard.name)
        names = groups_as_text(run.store.part(index, table["row"].to_numpy()).arrow(per))
        rows.update(n for n in names.to_pylist() if n is not None)
        kept.update(n for n in names.filter(table["keep"]).to_pylist() if n is not None)
    return [Group(name, n, kept[name]) for name, n in rows.items()]


def leakage(run: RunData) -> list[Leakage]:
    """Evaluation images that filters found in the pool."""
    return [leak for link in run.distinct_links if (leak := _leak(link)) is not None]


def _leak(link: Link) -> Leakage | None:
    summary = link.artifact.summary
    facts = summary["facts"]
    sets = facts.get("sets")
    if not _is_list(sets) or not all(isinstance(entry, Mapping) for entry in sets):
        return None
    rest = {k: v for k, v in facts.items() if k != "sets"}
    dropped = summary["entered"] - summary["kept"]
    return Leakage(link.subset, link.label, list(map(_leak_set, sets)), dropped, summary["entered"], rest)


def _leak_set(entry: Mapping[str, Any]) -> LeakSet:
    counts = {key: number(_first(entry, SET_NAMES[key])) for key in ("images", "matched", "rows")}
    whole = {key: None if value is None else int(value) for key, value in counts.items()}
    return LeakSet(str(_first(entry, SET_NAMES["name"], "?")), str(entry.get("split") or ""), **whole)


def repeats(run: RunData, subset: str) -> dict[int, int]:
    """Times -> kept rows of the subset that are repeated so often, ascending."""
    counter: Counter[int] = Counter()
    folder = run.named("subset")[subset].data
    for shard in run.shards:
        path = storage.local(storage.join(folder, f"{shard.name}.parquet"))
        times = pq.read_table(path, columns=["times"])["times"].to_numpy()
        values, counts = np.unique(times[times > 0], return_counts=True)
        counter.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return dict(sorted(counter.items()))
