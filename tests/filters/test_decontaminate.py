"""Pictures of evaluation sets are found in a pool, by each means, as a naive comparison finds them."""

import hashlib
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from curate.errors import DataError
from curate.filters.decontaminate import Decontaminate
from curate.filters.memory import MemoryContext, MemoryPool, run_filters
from curate.filters.scorers.checksum import pixel_checksum
from curate.filters.scorers.perceptual_hash import perceptual_hash
from curate.filters.tiles import pairs_at_least, raise_to_largest
from curate.shards.evalsets.source import EvalSource
from curate.shards.evalsets.write import write_evalset
from curate.shards.tar import TarWriter
from curate.shards.uid import stable_uid


class Corners:
    """An encoder that sees the mean colours of a picture's four corners."""

    def load(self):
        return self

    def encode_images(self, images):
        rows = []
        for image in images:
            half = image.shape[0] // 2
            corners = [image[:half, :half], image[:half, half:], image[half:, :half], image[half:, half:]]
            rows.append(np.concatenate([c.mean((0, 1)) - 128 for c in corners]))
        rows = np.array(rows, np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def picture(seed, side=48):
    """A smooth random picture: hashes of such survive resizing."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def encoded(rgb, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, kind)
    return file.getvalue()


def sets_in(folder):
    """`one`: test pictures 0-11 and a broken one, train pictures 100-104. `two`: test pictures 8-15."""
    broken = b"\x89PNG\r\n\x1a\n" + b"?" * 40
    test = [(encoded(picture(i)), 0) for i in range(12)]
    train = [(encoded(picture(i)), 0) for i in range(100, 105)]
    write_evalset(str(folder / "one"), ["a"], ["{c}"], {"test": [*test, (broken, 0)], "train": train}, 5)
    write_evalset(str(folder / "two"), ["a"], ["{c}"], {"test": [(encoded(picture(i)), 0) for i in range(8, 16)]})
    return {"one": str(folder / "one"), "two": str(folder / "two")}


def row(rgb, body=None):
    body = encoded(rgb) if body is None else body
    return {
        "sha256": hashlib.sha256(body).hexdigest(),
        "sums": pixel_checksum(rgb),
        "phash": perceptual_hash(rgb),
        "embedding": Corners().encode_images([rgb])[0],
    }


def pool_rows():
    """0: a test file; 1: its pixels in another file; 2: it made smaller; 3: of both sets; 4: train; 5-7: others."""
    shrunk = np.asarray(Image.fromarray(picture(3)).resize((32, 32), Image.Resampling.LANCZOS))
    return [
        row(picture(1)),
        row(picture(2), b"another file"),
        row(shrunk),
        row(picture(9), b"yet another"),
        row(picture(101)),
        *(row(picture(i)) for i in (200, 201, 202)),
    ]


def make(make_pool, rows, **more):
    columns = {
        "uid": [stable_uid(str(i)) for i in range(len(rows))],
        "sha256": [r["sha256"] for r in rows],
        "sums": [r["sums"] for r in rows],
        "phash": pa.array([r["phash"] for r in rows], pa.uint64()),
    }
    return make_pool(columns, {"e.image": np.array([r["embedding"] for r in rows])}, **more)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    (folder / "work" / "data").mkdir(parents=True)
    return MemoryContext(encoders={"e": Corners()}, evalsets=sets_in(folder), folder=str(folder / "work"))


def outcome(pool, context, **options):
    done = run_filters(pool, [Decontaminate(**{"sets": ["one", "two"], "file": False, **options})], context)
    return [r for table in done.fates for r in table.to_pylist()], done.steps[0].facts


def dropped(rows):
    return {i: r["reason"] for i, r in enumerate(rows) if not r["kept"]}


@pytest.mark.parametrize("cuts", [[], [2, 2, 5]])
def test_each_means_finds_what_it_can(make_pool, context, cuts):
    pool = make(make_pool, pool_rows(), cuts=cuts)
    rows, facts = outcome(pool, context, file=True)
    assert dropped(rows) == {0: "same_file"}
    assert rows[0]["value"] == 1
    assert facts["matched_by"] == {"file": 1}
    rows, _ = outcome(pool, context, pixels="sums")
    assert dropped(rows) == dict.fromkeys([0, 1, 3], "same_pixels")
    rows, facts = outcome(pool, context, hash="phash", radius=4)
    assert dropped(rows) == dict.fromkeys([0, 1, 2, 3], "near_hash")
    assert [rows[i]["value"] for i in (0, 1, 3)] == [0, 0, 0]
    assert 0 <= rows[2]["value"] <= 4
    assert np.isnan(rows[5]["value"])
    one, two = facts["sets"]
    assert (one["set"], one["split"], one["images"], one["undecodable"]) == ("one", "test", 13, 1)
    assert (one["images_in_pool"], one["pool_rows"]) == (4, 4)
    assert (two["images_in_pool"], two["pool_rows"], two["share_in_pool"]) == (1, 1, 1 / 8)
    rows, facts = outcome(pool, context, encoder="e", similarity=0.999)
    assert dropped(rows) == dict.fromkeys([0, 1, 2, 3], "near_embedding")
    assert rows[0]["value"] == pytest.approx(1, abs=1e-6)
    assert all(r["value"] < 0.999 for r in rows[4:])
    assert [s["images_in_pool"] for s in facts["sets"]] == [4, 1]


def test_all_means_at_once_splits_and_report_only(make_pool, context):
    pool = make(make_pool, pool_rows(), cuts=[3])
    every = {"file": True, "pixels": "sums", "hash": "phash", "encoder": "e", "similarity": 0.999}
    rows, facts = outcome(pool, context, splits=["test", "train"], **every)
    assert dropped(rows) == {
        0: "same_file",
        1: "same_pixels",
        2: "near_hash",
        3: "same_pixels",
        4: "same_file",
    }
    assert facts["matched_by"] == {"file": 2, "pixels": 4, "hash": 5, "embedding": 5}
    assert facts["matched"] == 5
    assert [(s["set"], s["split"], s["pool_rows"]) for s in facts["sets"]] == [
        ("one", "test", 4),
        ("one", "train", 1),
        ("two", "test", 1),
    ]
    json.dumps(facts, allow_nan=False)
    again, same = outcome(pool, context, splits=["test", "train"], report_only=True, **every)
    assert dropped(again) == {}
    assert {k: v for k, v in same.items() if k != "report_only"} == {
        k: v for k, v in facts.items() if k != "report_only"
    }
    assert [r["value"] for r in again] == [r["value"] for r in rows]


def test_holes_match_nothing(make_pool, context):
    rows = pool_rows()
    for r in rows[1:3]:
        r.update(sha256=None, sums=None, phash=None, embedding=np.full(12, np.nan, np.float32))
    rows[3]["embedding"] = np.zeros(12, np.float32)
    pool = make(make_pool, rows, cuts=[1, 3])
    every = {"file": True, "pixels": "sums", "hash": "phash", "encoder": "e", "similarity": 0.999}
    found, _ = outcome(pool, context, **every)
    assert dropped(found) == {0: "same_file", 3: "same_pixels"}
    assert np.isnan(found[3]["value"])
    assert outcome(MemoryPool([]), context, **every)[1]["matched"] == 0


def test_sets_without_labels_or_of_another_type_do(make_pool, tmp_path):
    folder = tmp_path / "captions" / "test"
    folder.mkdir(parents=True)
    (tmp_path / "captions" / "dataset_type.txt").write_text("retrieval\n")
    (folder / "nshards.txt").write_text("1\n")
    with TarWriter(str(folder / "0.tar")) as tar:
        tar.write("a", {"png": encoded(picture(1)), "txt": b"a thing"})
    (tmp_path / "work" / "data").mkdir(parents=True)
    context = MemoryContext(folder=str(tmp_path / "work"))
    name = str(tmp_path / "captions")
    rows, facts = outcome(make(make_pool, pool_rows()), context, sets=[name], hash="phash")
    assert dropped(rows) == {0: "near_hash"}
    assert facts["sets"][0]["images"] == 1
    with pytest.raises(DataError, match=r"no split among val; it has test"):
        outcome(make(make_pool, pool_rows()), context, sets=[name], hash="phash", splits=["val"])


def test_options():
    with pytest.raises(ValidationError, match="at least one of file, pixels, hash and encoder"):
        Decontaminate(sets=["one"], file=False)
    with pytest.raises(ValidationError, match="names a set twice"):
        Decontaminate(sets=["one", "one"])
    chosen = Decontaminate(sets=["one"], pixels="p", hash="h", encoder="e")
    assert chosen.columns() == ["sha256", "p", "h", "e.image"]
    assert (chosen.encoders(), chosen.evalsets()) == (["e"], [EvalSource(path="one")])


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 40), m=st.integers(1, 40), d=st.integers(1, 20), seed=st.integers(0, 99))
def test_products_against_float64(monkeypatch_tiles, n, m, d, seed):
    rng = np.random.default_rng(seed)
    rows, others = (rng.integers(-2, 3, (k, d)) + 0.5 for k in (n, m))
    rows, others = ((r / np.linalg.norm(r, axis=1, keepdims=True)).astype(np.float32) for r in (rows, others))
    exact = rows.astype(np.float64) @ others.astype(np.float64).T
    best = np.full(n, -np.inf)
    for half in (others[: m // 2], others[m // 2 :]):
        raise_to_largest(best, rows, half)
    np.testing.assert_allclose(best, exact.max(axis=1), rtol=1e-12, atol=1e-15)
    shuffled = rng.permutation(n)
    again = np.full(n, -np.inf)
    raise_to_largest(again, rows[shuffled], others[::-1].copy())
    np.testing.assert_array_equal(again, best[shuffled])
    limit = np.float32(0.5)
    found = [
        (i, j) for a, b in pairs_at_least(rows, others, limit) for i, j in zip(a.tolist(), b.tolist(), strict=True)
    ]
    clear = np.abs(exact - 0.5) > 1e-7
    assert len(set(found)) == len(found)
    assert {p for p in found if clear[p]} == {(i, j) for i, j in np.argwhere((exact >= 0.5) & clear).tolist()}


@pytest.fixture(scope="module")
def monkeypatch_tiles():
    """Tiles so small that edges matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.filters.tiles.TILE_ROWS", 7)
        patch.setattr("curate.filters.tiles.TILE_COLUMNS", 5)
        patch.setattr("curate.filters.tiles.PAIRS", 3)
        yield
