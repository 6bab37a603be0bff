"""What the report makes of scores: columns as files of a little pool, facts as scorers tell them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.eval.report.check import check_report
from curate.eval.report.data import Header, Pool, Report
from curate.eval.results.files import FORMAT
from curate.pipeline.artifact import Artifact
from curate.pipeline.config import Config
from curate.pipeline.reporting.distributions import MORE_COLUMNS, Distributions, distributions
from curate.pipeline.reporting.encoders import looks
from curate.pipeline.reporting.filter_networks import encoders_behind, filter_networks
from curate.pipeline.reporting.scores import learned_score, learned_scores, options_in_short, score_facts
from curate.pipeline.reporting.source import RunData
from curate.shards import storage

STATUS = [["success", "success", "http_404", "success"], ["success", "dns", "success"], []]
CAPTIONS = [["a", None, "c", ""], ["e", "f", "g"], []]
ROWS, FETCHED = 7, 5


class LittlePool:
    """Seven rows in three shards, two of them without an image, as the artifacts of a finished run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs: dict[str, Artifact] = {}
        shards = []
        for i, (status, captions) in enumerate(zip(STATUS, CAPTIONS, strict=True)):
            path = folder / "pool" / f"{i:08d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            width = pa.array([100 * i + 10 * j for j in range(len(status))], pa.int32())
            table = {
                "status": pa.array(status, pa.string()),
                "caption": pa.array(captions, pa.string()),
                "width": width,
            }
            pq.write_table(pa.table(table), path)
            shards.append({"name": f"{i:08d}", "tar": f"pool/{i:08d}.tar", "table": f"pool/{i:08d}.parquet"})
        self.add("pool", {"rows": ROWS, "usable": FETCHED, "shards": shards})

    def add(self, role: str, summary: dict[str, Any], identity: Any = None) -> Path:
        """An artifact of that role; returns its data folder."""
        path = self.folder / role.replace("/", "-").replace("pool", "the-pool")
        (path / "data").mkdir(parents=True)
        storage.write_json(str(path / "artifact.json"), {"summary": summary, "identity": identity})
        self.inputs[role] = Artifact(str(path))
        return path / "data"

    def score(self, name: str, columns: list[dict[str, pa.Array]], facts: dict[str, Any] | None = None) -> None:
        """A score whose files hold these columns, per shard."""
        data = self.add(f"score/{name}", {"rows": ROWS, "facts": facts or {}})
        for i, one in enumerate(columns):
            pq.write_table(pa.table(one), data / f"{i:08d}.parquet")

    def cut(self, subset: str, filter_: dict[str, Any], facts: dict[str, Any], keep: list[list[bool]]) -> None:
        """A subset of one filter with these decisions about the fetched rows."""
        self.add(f"subset/{subset}", {"samples": 0}, {"labels": [f"1-{filter_['type']}"]})
        kept = sum(map(sum, keep))
        summary = {"entered": FETCHED, "kept": kept, "facts": facts, "reasons": {"below_threshold": FETCHED - kept}}
        data = self.add(f"filter/{subset}/00", summary, {"filter": filter_})
        for i, mask in enumerate(keep):
            rows = [j for j, status in enumerate(STATUS[i]) if status == "success"]
            table = {
                "row": pa.array(rows, pa.int32()),
                "keep": pa.array(mask, pa.bool_()),
                "reason": pa.array([None if k else "below_threshold" for k in mask], pa.string()).dictionary_encode(),
            }
            pq.write_table(pa.table(table), data / f"{i:08d}.parquet")

    def run(self, **sections: Any) -> RunData:
        config = {"name": "little", "pool": {"source": {"type": "demo"}}, **sections}
        return RunData(Config.model_validate(config), self.inputs)


@pytest.fixture
def pool(tmp_path: Path) -> LittlePool:
    return LittlePool(tmp_path)


def split(values: list[Any], type_: pa.DataType | None = None) -> list[pa.Array]:
    """Seven values as the columns of the three shards."""
    return [pa.array(part, type_) for part in (values[:4], values[4:], [])]


def adds_up(found: Distributions) -> None:
    check_report(
        Report(
            Header("x"),
            pool=Pool(ROWS, FETCHED, {"dead": ROWS - FETCHED}),
            histograms=found.histograms,
            commonest=found.commonest,
        )
    )


SIMILARITY = {"type": "clip_similarity", "encoder": "clip"}
ENCODERS = {"clip": {"model": "RN-mini-32", "pretrained": "clip.pt"}}


def test_rows_without_an_image_do_not_count_whatever_their_columns_hold(pool: LittlePool) -> None:
    values = split([1.0, float("nan"), 99.0, 3.0, 2.0, -99.0, float("inf")], pa.float32())
    pool.score("s", [{"s": v} for v in values])
    pool.cut("best", {"type": "threshold", "by": "s", "at_least": 2.0}, {"column": "s", "threshold": 2.0},
             [[False, False, True], [True, False], []])  # fmt: skip
    found = distributions(pool.run(scores={"s": SIMILARITY}, encoders=ENCODERS), None)
    (histogram,) = found.histograms
    assert (histogram.edges[0], histogram.edges[-1]) == (1.0, 3.0)
    assert (sum(histogram.counts), histogram.missing) == (3, 2)
    (cut,) = histogram.splits
    assert (cut.subset, cut.thresholds, sum(cut.kept), sum(cut.dropped)) == ("best", [2.0], 2, 1)
    adds_up(found)


@pytest.mark.parametrize("value", [0.0, 5.0, -1e30, 3e38])
def test_a_column_of_one_value_has_a_histogram(pool: LittlePool, value: float) -> None:
    pool.score("s", [{"s": v} for v in split([value] * 7, pa.float32())])
    found = distributions(pool.run(scores={"s": SIMILARITY}, encoders=ENCODERS), None)
    (histogram,) = found.histograms
    assert sum(histogram.counts) == FETCHED
    assert histogram.low == histogram.high == np.float32(value)
    adds_up(found)


def test_words_and_flags_are_counted_and_what_is_no_number_is_not_drawn(pool: LittlePool) -> None:
    columns = {
        "s": split(["cat", None, "dog", "dog", "cat", "dog", "<b>"]),
        "s_flag": split([True, False, True, None, True, True, True]),
        "s_hash": split([1, 2, 3, 4, 5, 6, 7], pa.uint64()),
        "s_list": split([[1], [], None, [2], [], [], []], pa.list_(pa.int32())),
        "s_none": split([None] * 7),
        "s_late": split([None, None, None, None, 1, 2, 3], pa.int16()),
        "s_half": split([np.float16(v) for v in range(7)], pa.float16()),
    }
    columns["s_late"][0] = pa.nulls(4)  # a shard without a value has no type
    pool.score("s", [{name: arrays[i] for name, arrays in columns.items()} for i in range(3)])
    found = distributions(pool.run(scores={"s": SIMILARITY}, encoders=ENCODERS), None)
    words, flags = found.commonest
    assert (words.column, words.values, words.missing, words.distinct) == ("s", {"cat": 2, "<b>": 1, "dog": 1}, 1, 3)
    assert (flags.column, flags.values, flags.missing) == ("s_flag", {"yes": 3, "no": 1}, 1)
    assert [h.column for h in found.histograms] == ["s_late", "s_half"]
    assert [h.missing for h in found.histograms] == [3, 0]
    assert found.not_drawn["s"].keys() == {"s_hash", "s_list", "s_none"}
    assert found.not_drawn["s"]["s_hash"] == "uint64"
    adds_up(found)


def test_words_that_all_differ_are_no_bars(tmp_path: Path) -> None:
    pool = LittlePool(tmp_path)
    many = 40
    table = pa.table({"status": ["success"] * many, "caption": ["x"] * many, "width": [1] * many})
    pq.write_table(table, tmp_path / "pool" / "00000000.parquet")
    pool.score("s", [{"s": pa.array([f"hash {i}" for i in range(many)])}, *({"s": v} for v in split([None] * 7)[1:])])
    found = distributions(pool.run(scores={"s": SIMILARITY}, encoders=ENCODERS), None)
    assert found.commonest == []
    assert found.not_drawn == {"s": {"s": "text, nearly every row another"}}


def test_many_columns_of_one_score_are_cut_off_and_said_but_not_those_that_a_subset_cuts(pool: LittlePool) -> None:
    names = ["s", *(f"s_p{i:03d}" for i in range(60))]
    pool.score("s", [{name: split([1.0] * 7)[i] for name in names} for i in range(3)])
    facts = {"column": "s_p059", "threshold": 1.0}
    pool.cut("best", {"type": "threshold", "by": "s_p059", "at_least": 1.0}, facts, [[True] * 3, [True] * 2, []])
    found = distributions(pool.run(scores={"s": SIMILARITY}, encoders=ENCODERS), None)
    assert len(found.histograms) == MORE_COLUMNS + 2
    assert found.histograms[-1].column == "s_p059"
    assert list(found.not_drawn["s"]) == ["s_p024 and 34 more"]


def test_a_number_of_the_row_table_that_a_subset_cuts_is_drawn(pool: LittlePool) -> None:
    facts = {"column": "width", "threshold": 20.0}
    pool.cut(
        "wide", {"type": "threshold", "by": "width", "at_least": 20}, facts, [[False, False, True], [True] * 2, []]
    )
    found = distributions(pool.run(), None)
    assert [h.column for h in found.histograms] == ["width"]
    assert sum(found.histograms[0].splits[0].kept) == 3
    adds_up(found)


def embedded(pool: LittlePool, name: str, modalities: tuple[str, ...], **summary: Any) -> None:
    data = pool.add(f"embed/{name}", {"rows": ROWS, **summary})
    for modality in modalities:
        np.save(data / f"00000000.{modality}.npy", np.zeros((4, 2), np.float16))


def test_every_look_adds_up_to_the_rows_of_the_pool(pool: LittlePool) -> None:
    embedded(pool, "clip", ("image", "text"), images=2, texts=3, corrupt=1, missing=1, not_finite=2)
    embedded(pool, "masked", ("image",), images=3, texts=0, corrupt=1, missing=1, not_finite=0, masked=2)
    joined = {"rows": 9, "malformed": 1, "distinct": 8, "repeated": 0, "conflicting": 0, "matched": 4, "unmatched": 1}
    embedded(pool, "taken", ("image",), images=3, facts={**joined, "not_in_pool": 4, "dims": {"image": 2}})
    pool.score("size", [{"size": v} for v in split([10, None, None, 20, 30, None, None], pa.int32())])
    pool.score("old", [{"old": v} for v in split([1.0, float("nan"), 9.0, None, 2.0, 9.0, 3.0])], joined)
    scores = {"size": {"type": "image_size"}, "old": {"type": "import", "path": "x.parquet", "column": "old"}}
    encoders = {**ENCODERS, "masked": {"of": "clip", "mask_text": True}}
    run = pool.run(scores=scores, encoders=encoders)
    found = {look.name: look for look in looks(run)}
    assert list(found) == ["clip", "masked", "taken", "size", "old"]
    pictures, captions = found["clip"].tallies
    assert pictures.nulls == {"not fetched": 2, "corrupt": 1, "missing from the tar": 1, "not finite": 1}
    assert captions.nulls == {"not fetched": 2, "no caption": 1, "not finite": 1}
    assert found["masked"].facts == {"masked": 2}
    assert [t.nulls for t in found["taken"].tallies] == [
        {"not fetched": 2, "no match in the files": 1, "no value in the files": 1}
    ]
    assert found["size"].tallies[0].nulls == {"not fetched": 2, "corrupt": 1, "missing from the tar": 1}
    assert found["size"].tallies[0].values == 3
    assert found["old"].tallies[0].nulls == {
        "not fetched": 2, "no match in the files": 1, "no value in the files": 1
    }  # fmt: skip
    assert found["old"].facts["malformed"] == 1
    check_report(Report(Header("x"), pool=Pool(ROWS, FETCHED, {"dead": 2}), looks=list(found.values())))


def test_a_null_that_nobody_explains_is_called_that(pool: LittlePool) -> None:
    embedded(pool, "clip", ("image",), images=4)
    (look,) = looks(pool.run(encoders=ENCODERS))
    assert look.tallies[0].nulls == {"not fetched": 2, "unexplained": 1}


CHAIN = {
    "encoders": {
        "clip": {"model": "RN-mini-32", "pretrained": "clip.pt"},
        "dfn": {"model": "RN-mini-32", "pretrained": "dfn.pt"},
        "masked": {"of": "clip", "mask_text": True},
    },
    "scores": {
        "clean": {"type": "clip_similarity", "encoder": "clip"},
        "clean_dfn": {"type": "clip_similarity", "encoder": "dfn"},
        "mix": {"type": "mix", "columns": ["clean_dfn", "words"], "weights": {"clean_dfn": 1.0, "words": 0.5}},
        "mix_of_mix": {"type": "mix", "columns": ["mix"], "weights": {"mix": 1.0}},
        "words": {"type": "caption_statistics"},
    },
}


@pytest.mark.parametrize(
    ("column", "encoders"),
    [
        ("clean", {"clip"}),
        ("clean_dfn", {"dfn"}),
        ("mix_of_mix", {"dfn"}),
        ("words", set()),
        ("caption", set()),
        ("masked.image", {"masked", "clip"}),
        ("clip.text", {"clip"}),
    ],
)
def test_encoders_behind_a_column(pool: LittlePool, column: str, encoders: set[str]) -> None:
    assert encoders_behind(pool.run(**CHAIN).config, [column]) == encoders


def evaluated(pool: LittlePool, name: str, correct: int) -> None:
    """Results of an encoder as `eval.evaluate` writes them."""
    data = pool.add(f"network/{name}", {"seeds": {"model": {}}})
    record = {
        "dataset": "digits", "suite": "zero_shot", "dataset_digest": "d", "text_hash": "t", "options": {},
        "version": 1, "split": "test", "n": 100, "classes": 10, "chance": 0.1, "main_metric": "acc1",
        "metrics": {"acc1": correct / 100}, "correct": correct, "wilson95": [correct / 100 - 0.1, correct / 100 + 0.1],
        "per_class": [], "confusion": None, "outcomes": "outcomes/x.parquet",
    }  # fmt: skip
    storage.write_json(str(data / "model" / "results.json"), {"format": FORMAT, "results": [record]})


def test_networks_stand_beside_what_they_keep_even_when_nothing_was_trained_on_it(pool: LittlePool) -> None:
    pool.cut("by_mix", {"type": "top_fraction", "by": "mix", "keep": 0.5}, {}, [[True, False, True], [True, False], []])
    pool.cut("by_words", {"type": "threshold", "by": "words", "at_least": 1}, {}, [[True] * 3, [True] * 2, []])
    evaluated(pool, "dfn", 62)
    evaluated(pool, "clip", 80)
    pool.add("stage/encoder/dfn", {"distinct": 300, "samples_seen": 640})
    sections = {**CHAIN, "encoders": dict(CHAIN["encoders"])}
    training = {"data": {"type": "demo"}, "samples_seen": 640}
    sections["encoders"]["dfn"] = {"model": "RN-mini-32", "train": training}
    found = filter_networks(pool.run(**sections), None)
    assert found is not None
    dfn, clip = found.networks
    assert (dfn.made, dfn.pairs, dfn.samples_seen) == ("trained here", 300, 640)
    assert (clip.made, clip.pairs) == ("loaded from clip.pt", None)
    own = dfn.scores["zero_shot acc1"]
    assert own.mean == 0.62
    assert own.low is not None
    assert own.high is not None
    assert own.low < 0.62 < own.high
    (kept,) = dfn.subsets
    assert (kept.subset, kept.kept, kept.through, kept.scores) == ("by_mix", 3, ["1-top_fraction by mix"], {})
    assert clip.subsets == []
    assert found.metrics[0].chance == 0.1
    check_report(Report(Header("x"), networks=found))
    assert filter_networks(LittlePool(pool.folder / "other_folder_of_a_run").run(), None) is None


def test_what_a_learned_score_says_is_read_whatever_else_it_says() -> None:
    told = {
        "learned_by": "m_flyt",
        "weights": [
            {
                "column": "a",
                "weight": 0.5,
                "low": 0.1,
                "high": 0.9,
                "mean": 1,
                "std": 2.0,
                "missing": 3,
                "seeds": [0.4],
            },
            {"column": "b", "weight": -0.5, "low": None, "high": 0.9, "mean": None, "new": {"x": 1}},
            {"column": "c", "weight": None},
        ],
        "auc": {"value": 0.9, "trusted": 60, "pool": 1400},
        "interval": "Student t over 3 seeds",
        "curve": [{"seed": 7, "points": [{"step": 1, "downstream_loss": 2.0}, {"step": 2, "downstream_loss": None}]}],
        "something_new": [1, 2],
    }
    learned = learned_score("mix", told)
    assert [(w.column, w.weight, w.low, w.missing) for w in learned.weights] == [
        ("a", 0.5, 0.1, 3),
        ("b", -0.5, None, None),
    ]
    assert (learned.auc, learned.auc_over) == (0.9, "over 60 trusted and 1,400 pool rows that were held out")
    assert [(c.seed, list(c.steps), list(c.loss)) for c in learned.curves] == [(7, [1], [2.0])]
    assert learned.facts == {"something_new": [1, 2]}
    check_report(Report(Header("x"), learned=[learned]))
    plain = learned_score("x", {"learned_by": "fixed", "curve": [[0, 2.5], [10, 1.5]], "auc": float("nan")})
    assert (list(plain.curves[0].steps), plain.auc, plain.weights) == ([0, 10], None, [])


def test_facts_of_scores_and_their_options(pool: LittlePool) -> None:
    pool.score("clean", [{"clean": v} for v in split([1.0] * 7)], {"temperature": 0.01})
    pool.score("mix", [{"mix": v} for v in split([1.0] * 7)], {"learned_by": "fixed", "weights": []})
    run = pool.run(**CHAIN)
    clean, mix = score_facts(run, {"clean": {"clean_hash": "uint64"}})
    assert (clean.type, clean.options, clean.facts) == ("clip_similarity", "encoder clip", {"temperature": 0.01})
    assert clean.not_drawn == {"clean_hash": "uint64"}
    assert mix.options == "columns clean_dfn words, weights clean_dfn: 1.0, words: 0.5"
    assert mix.facts == {}
    assert [one.score for one in learned_scores(run)] == ["mix"]


def test_nested_options_are_told_in_brackets(pool: LittlePool) -> None:
    learn = {"type": "logistic", "trusted": "gold", "ridge": 0.5}
    scores = {"mix": {"type": "mix", "columns": ["words"], "learn": learn}, "words": {"type": "caption_statistics"}}
    run = pool.run(scores=scores, targets={"gold": {"type": "demo"}})
    assert options_in_short(run.config.scores["mix"]) == "columns words, learn logistic (trusted gold, ridge 0.5)"
