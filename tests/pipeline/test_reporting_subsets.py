"""What the report makes of subsets: overlaps, close calls, copies, quotas and leaks, from files of a little pool."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.eval.report.check import check_report
from curate.eval.report.data import Header, Report
from curate.pipeline.artifact import Artifact
from curate.pipeline.config import Config
from curate.pipeline.reporting.cluster_edges import cluster_edges
from curate.pipeline.reporting.cuts import distance, lines, thresholds
from curate.pipeline.reporting.examples import Best, Example, examples
from curate.pipeline.reporting.filters import budget_sentence, filter_facts, leakage, quotas, repeats
from curate.pipeline.reporting.overlap import overlap_of
from curate.pipeline.reporting.pairs import originals
from curate.pipeline.reporting.pool import funnels
from curate.pipeline.reporting.source import RunData
from curate.pipeline.reporting.spread import AT, spreads
from curate.shards import storage

PARTS = ([0, 1, 2, 3], [4, 5, 6], [])
CAPTIONS = ["a", "b", "a", "c", "a", None, "b"]
LANGUAGES = ["en", "de", "en", "en", "de", None, "en"]


class Pool:
    """Seven fetched rows and one that failed, in three shards, as the artifacts of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs: dict[str, Artifact] = {}
        shards = []
        for i, rows in enumerate(PARTS):
            failed = int(i == 1)
            table = {
                "uid": pa.array([f"{9 - r:032x}" for r in rows] + ["f" * 32] * failed, pa.string()),
                "status": pa.array(["success"] * len(rows) + ["http_404"] * failed, pa.string()),
                "caption": pa.array([CAPTIONS[r] for r in rows] + [None] * failed, pa.string()),
                "language": pa.array([LANGUAGES[r] for r in rows] + [None] * failed, pa.string()),
                "hash": pa.array([3 * r for r in rows] + [None] * failed, pa.uint64()),
            }
            (folder / "pool").mkdir(exist_ok=True)
            pq.write_table(pa.table(table), folder / "pool" / f"{i:08d}.parquet")
            shards.append({"name": f"{i:08d}", "tar": f"pool/{i:08d}.tar", "table": f"pool/{i:08d}.parquet"})
        self.add("pool", {"rows": 8, "usable": 7, "status": {"success": 7, "http_404": 1}, "shards": shards})

    def add(self, role: str, summary: dict[str, Any], identity: Any = None) -> Path:
        path = self.folder / role.replace("/", "-").replace("pool", "the-pool")
        (path / "data").mkdir(parents=True)
        storage.write_json(str(path / "artifact.json"), {"summary": summary, "identity": identity})
        self.inputs[role] = Artifact(str(path))
        return path / "data"

    def subset(
        self,
        name: str,
        filter_: dict[str, Any],
        times: list[int],
        values: list[float],
        facts: dict[str, Any] | None = None,
        groups: list[int] | None = None,
        reason: str = "below_threshold",
    ) -> None:
        """A subset of one filter that keeps row r `times[r]` times."""
        kept = sum(t > 0 for t in times)
        summary = {"entered": 7, "kept": kept, "facts": facts or {}, "reasons": {reason: 7 - kept} if kept < 7 else {}}
        data = self.add(f"filter/{name}/00", summary, {"filter": filter_})
        fates = self.add(f"subset/{name}", {"samples": sum(times), "kept": kept}, {"labels": [f"1-{filter_['type']}"]})
        for i, rows in enumerate(PARTS):
            keep = pa.array([times[r] > 0 for r in rows], pa.bool_())
            table = {
                "row": pa.array(range(len(rows)), pa.int32()),
                "keep": keep,
                "value": pa.array([values[r] for r in rows], pa.float32()),
                "reason": pa.array([None if times[r] else reason for r in rows], pa.string()).dictionary_encode(),
                "times": pa.array([times[r] for r in rows], pa.int32()),
            }
            if groups is not None and rows:  # a part without rows in clusters has no such column
                table["group"] = pa.array([groups[r] for r in rows], pa.int32())
            pq.write_table(pa.table(table), data / f"{i:08d}.parquet")
            failed = [0] if i == 1 else []
            fate = {
                "kept": pa.array([times[r] > 0 for r in rows] + [False] * len(failed), pa.bool_()),
                "times": pa.array([times[r] for r in rows] + failed, pa.int32()),
            }
            pq.write_table(pa.table(fate), fates / f"{i:08d}.parquet")

    def run(self) -> RunData:
        return RunData(Config.model_validate({"name": "x", "pool": {"source": {"type": "demo"}}}), self.inputs)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path)


TOP = {"type": "top_fraction", "by": "hash", "keep": 0.5}
VALUES = [0.1, 0.9, 0.5, 0.4, float("nan"), 0.6, 0.3]


# --- overlaps and repeats ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)  # files
@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=5))
def test_overlap_is_what_sets_say(tmp_path_factory: pytest.TempPathFactory, kept: list[list[bool]]) -> None:
    folder = tmp_path_factory.mktemp("overlap")
    for i, mask in enumerate(kept):
        (folder / str(i)).mkdir()
        for part, rows in enumerate(PARTS):
            table = pa.table({"kept": pa.array([mask[r] for r in rows], pa.bool_())})
            pq.write_table(table, folder / str(i) / f"{part}.parquet")
    found = overlap_of({f"s{i}": str(folder / str(i)) for i in range(len(kept))}, ["0", "1", "2"])
    sets = [{r for r in range(7) if mask[r]} for mask in kept]
    for i, a in enumerate(sets):
        for j, b in enumerate(sets):
            assert found.common[i][j] == len(a & b)
            assert found.share(i, j) == (len(a & b) / len(a) if a else None)
            assert found.jaccard(i, j) == (len(a & b) / len(a | b) if a | b else None)
    check_report(Report(Header("x"), overlap=found))


def test_funnels_add_up_with_repeats_and_failed_rows(pool: Pool) -> None:
    pool.subset("top", TOP, [0, 3, 1, 1, 0, 1, 0], VALUES, {"threshold": 0.4})
    run = pool.run()
    assert repeats(run, "top") == {1: 3, 3: 1}
    (funnel,) = funnels(run)
    assert (funnel.pool, funnel.kept, funnel.samples) == (8, 4, 6)
    check_report(Report(Header("x"), funnels=[funnel]))


# --- thresholds and close calls ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "cuts"),
    [
        ({"threshold": 0.5}, [0.5]),
        ({"threshold": 0.1, "low": 0.1, "high": 0.9, "keep": "inside"}, [0.1, 0.9]),
        ({"bounds": [2, None, 1]}, [1.0, 2.0]),
        ({"threshold": None, "above": True, "below": float("nan")}, []),
        ({"radius": 4, "similarity_threshold": 0.9}, []),
        ({"cuts": {"en": {"threshold": 0.3}, "de": {"threshold": None}, "fr": 3}}, [0.3]),
        ({"cuts": {str(i): {"threshold": i} for i in range(100)}}, [0, 14, 28, 42, 57, 71, 85, 99]),
        ({}, []),
    ],
)
def test_thresholds_are_found_in_facts(facts: dict[str, Any], cuts: list[float]) -> None:
    assert lines(facts) == cuts
    if "cuts" not in facts:
        assert thresholds(facts) == cuts


@given(
    st.lists(st.floats(width=32), max_size=20),
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=4),
)
def test_distance_is_to_the_nearest_cut(values: list[float], cuts: list[float]) -> None:
    found = distance(np.array(values, np.float32), sorted(set(cuts)))
    for value, gap in zip(values, found, strict=True):
        expected = min((abs(value - c) for c in cuts), default=np.inf) if np.isfinite(value) else np.inf
        assert gap == expected


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 6), st.integers(1, 7))
def test_the_best_of_all_parts_are_found_whatever_the_parts(keys: list[int], most: int, size: int) -> None:
    whole = Best(most)
    ties = np.arange(len(keys))[::-1] / 100
    for start in range(0, len(keys), size):
        part = np.array(keys[start : start + size], float)
        whole.offer(
            part, ties[start : start + size], np.arange(len(part)), lambda i, s=start: Example(0, s + i, 0.0, "")
        )
    expected = sorted(range(len(keys)), key=lambda i: (keys[i], ties[i]))[:most]
    assert [e.row for e in whole.examples()] == expected


def close(run: RunData, size: int = 2) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    (link,) = run.distinct_links
    found = examples(run, link.artifact.data, link.artifact.summary["facts"], size, 0)
    assert (found.dropped_total, found.kept_total) == (3, 4)
    assert len(found.dropped) == len(found.kept) == size
    return [(e.part, e.row) for e in found.just_kept], [(e.part, e.row) for e in found.just_dropped]


def test_just_kept_and_just_dropped(pool: Pool) -> None:
    pool.subset("top", TOP, [0, 1, 1, 1, 0, 1, 0], VALUES, {"threshold": 0.4})
    assert close(pool.run()) == ([(0, 3), (0, 2)], [(1, 2), (0, 0)])  # the row without a value is not close


def test_close_to_the_cut_of_its_own_group(pool: Pool) -> None:
    facts = {"per": "language", "cuts": {"en": {"threshold": 0.4}, "de": {"threshold": 0.9}}}
    pool.subset("top", TOP, [0, 1, 1, 1, 0, 1, 0], VALUES, facts)
    assert close(pool.run(), 3) == ([(0, 1), (0, 3), (0, 2)], [(1, 2), (0, 0)]) or close(pool.run(), 3) == (
        [(0, 3), (0, 1), (0, 2)],
        [(1, 2), (0, 0)],
    )  # both lie on their cuts


def test_clusters_have_cuts_when_one_end_of_each_is_kept(pool: Pool) -> None:
    groups = [0, 0, 0, 1, 1, -1, 1]
    values = [0.1, 0.9, 0.5, 0.4, 0.2, 0.6, 0.3]
    pool.subset("c", TOP, [0, 1, 1, 1, 0, 1, 0], values, {}, groups)
    run = pool.run()
    just_kept, just_dropped = close(run, 3)
    assert set(just_kept[:2]) == {(0, 2), (0, 3)}  # the last of each cluster that stayed
    assert just_dropped[0] == (1, 2)
    (link,) = run.distinct_links
    files = [(link.artifact.data, shard.name) for shard in run.shards]
    edges = cluster_edges(files)
    assert edges is not None
    assert edges.cuts == pytest.approx([0.5, 0.4])


def test_a_random_choice_has_no_cut(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    pool.subset("c", TOP, [1, 0, 1, 0, 1, 1, 0], VALUES, {}, [0] * 7)
    assert close(pool.run()) == ([], [])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.floats(width=32)), max_size=40))
def test_quantiles_are_those_of_sorted_values(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[bool, float]]
) -> None:
    folder = tmp_path_factory.mktemp("spread")
    for part in range(2):
        mine = rows[part::2]
        table = {
            "keep": pa.array([k for k, _ in mine], pa.bool_()),
            "value": pa.array([v for _, v in mine], pa.float32()),
            "reason": pa.array([None] * len(mine), pa.string()),
        }
        pq.write_table(pa.table(table), folder / f"{part}.parquet")
    for side, found in spreads(str(folder), ["0", "1"]).items():
        values = np.sort(np.array([v for k, v in rows if k == side and not np.isnan(v)], np.float32))
        assert found.rows == sum(k == side for k, _ in rows)
        assert found.missing == found.rows - len(values)
        n = len(values)
        assert found.quantiles == [float(values[int(np.ceil((n - 1) * at - 0.5))]) + 0.0 for at in AT if n]


# --- copies ------------------------------------------------------------------------------------------


def test_copies_lead_to_the_kept_row_with_the_smallest_uid(pool: Pool) -> None:
    nan = float("nan")
    exact = {"type": "exact_dedup", "on": ["caption"]}
    pool.subset("d", exact, [1, 1, 0, 1, 1, 0, 0], [nan] * 7, {}, reason="duplicate_caption")
    run = pool.run()
    (link,) = run.distinct_links
    dropped = [Example(0, 2, nan, "duplicate_caption"), Example(1, 1, nan, "duplicate_caption"),
               Example(1, 2, nan, "duplicate_caption"), Example(1, 2, nan, "duplicate_image")]  # fmt: skip
    found = originals(run, link, dropped)
    assert [(e.part, e.row) if e else None for e in found] == [(1, 0), None, (0, 1), None]


# --- groups, leaks, facts ----------------------------------------------------------------------------


def test_quotas_are_counted_in_the_decisions(pool: Pool) -> None:
    facts = {"per": "language", "cuts": {"en": {"threshold": 0.4, "rows": 4, "scored": 4, "wanted": 99}}}
    pool.subset("q", TOP, [0, 1, 1, 1, 0, 1, 0], VALUES, facts)
    clusters = [{"cluster": 0, "size": 99, "kept": 5000}]
    pool.subset("c", TOP, [0, 2, 2, 1, 0, 1, 0], VALUES, {"clusters": clusters}, [0, 0, 0, 5, 5, -1, 5])
    odd = {"groups": {"a": {"rows": 4, "kept": 9}}, "clusters": "many"}
    pool.subset("odd", TOP, [1] * 7, VALUES, odd)
    pool.subset("named", TOP, [1] * 7, VALUES, {"groups": [{"group": "a", "drawn": 1, "rows": 4}, 3, {"rows": 2}]})
    run = pool.run()
    found = {(q.subset, q.what): [(g.name, g.size, g.kept) for g in q.groups] for q in quotas(run)}
    assert found == {
        ("q", "language"): [("en", 4, 2), ("de", 2, 1)],
        ("c", "cluster"): [("0", 3, 2), ("5", 3, 1)],
        ("named", "group"): [("a", 4, 1)],
    }
    told = {f.subset: f.facts for f in filter_facts(run)}
    assert told["q"] == {"per": "language"}
    assert told["odd"] == {"clusters": "many"}
    check_report(Report(Header("x"), funnels=funnels(run), quotas=quotas(run)))


def test_leaks_are_read_whatever_their_keys_are_called(pool: Pool) -> None:
    sets = [
        {"set": "digits", "split": "test", "images": 9, "images_in_pool": 2, "pool_rows": 3},
        {"name": "old", "matched": 1, "rows": 1},
        {},
    ]
    pool.subset("clean", TOP, [0, 1, 1, 1, 0, 1, 0], VALUES, {"sets": sets, "radius": 4})
    pool.subset("other", TOP, [1] * 7, VALUES, {"sets": "not this"})
    (leak,) = leakage(pool.run())
    assert (leak.dropped, leak.entered, leak.facts) == (3, 7, {"radius": 4})
    told = [(s.name, s.split, s.images, s.matched, s.rows) for s in leak.sets]
    assert told == [("digits", "test", 9, 2, 3), ("old", "", None, 1, 1), ("?", "", None, None, None)]


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (None, ""),
        (86, ""),
        ("as it is", "as it is"),
        (
            {
                "rule": "r",
                "samples_seen": 3600,
                "repeats": 4.0,
                "rows": 2250,
                "kept": 900,
                "bound": "none",
                "views": 4.0,
            },
            "auto keeps 900 of 2,250 rows (40.0 %) for a training of 3,600 samples: each is seen 4.0 times; 4 were "
            "asked for.",
        ),
        ({"samples_seen": 500, "draws": 500}, "auto draws 500 samples for a training that sees 500."),
        ({"some_rule": 3}, "some rule 3"),
        (
            {"samples_seen": 8, "rows": 0, "kept": 0, "bound": "least"},
            "auto keeps 0 of 0 rows for a training of 8 samples, the limit 'least' decided.",
        ),
    ],
)
def test_budgets_are_sentences(told: Any, sentence: str) -> None:
    assert budget_sentence(told) == sentence
