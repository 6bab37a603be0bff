"""Features on disk: found again bit for bit under their own key, broken files named."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from curate.errors import DataError
from curate.eval.embedding.feature_cache import Chunk, FeatureCache, TextCache

MODEL = {"digest": "0" * 32, "precision": "fp32", "dim": 5}


def model(**other) -> SimpleNamespace:
    return SimpleNamespace(**{**MODEL, **other})


def cache(folder, encoder=None, digest="d", split="test", rows=None, norms=False) -> FeatureCache:
    return FeatureCache(str(folder), encoder or model(), digest, split, rows, norms)


def chunk(n: int = 4, norms: bool = False, dim: int = 5) -> Chunk:
    rng = np.random.default_rng(n)
    image = rng.normal(size=(n, dim)).astype(np.float32)
    return Chunk(image, image[:, 0] if norms else None, rng.integers(0, 256, (n, 16), dtype=np.uint8))


def same(a: Chunk | None, b: Chunk) -> bool:
    return a is not None and all(x is y is None or np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("norms", [False, True])
def test_chunks_come_back_and_are_the_same_bytes(tmp_path, norms):
    for folder in ("one", "two"):
        kept = cache(tmp_path / folder, norms=norms)
        assert kept.read(0, 4) is None
        kept.write(0, chunk(4, norms))
        kept.write(1, chunk(3, norms))
        assert same(kept.read(0, 4), chunk(4, norms))
        assert same(kept.read(1, 3), chunk(3, norms))
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / f).rglob("*.npz")} for f in ("one", "two"))
    assert one == two


def test_without_a_folder_nothing_is_kept():
    kept = FeatureCache(None, model(), "d", "test")  # type: ignore[arg-type]
    kept.write(0, chunk())
    assert kept.read(0, 4) is None
    texts = TextCache(None, model())  # type: ignore[arg-type]
    texts.write(["a"], np.zeros((1, 5), np.float32))
    assert texts.read(["a"])[0] == []


def test_every_part_of_the_key_counts(tmp_path):
    cache(tmp_path).write(0, chunk())
    others = [
        cache(tmp_path, model(digest="1" * 32)),
        cache(tmp_path, model(precision="bf16")),
        cache(tmp_path, digest="e"),
        cache(tmp_path, split="train"),
        cache(tmp_path, rows=np.arange(4)),
        cache(tmp_path, norms=True),
    ]
    assert all(other.read(0, 4) is None for other in others)
    assert cache(tmp_path).read(1, 4) is None
    cache(tmp_path, rows=np.arange(4)).write(0, chunk(3))
    assert cache(tmp_path, rows=np.arange(1, 5)).read(0, 4) is None


def test_a_file_of_another_shape_is_named(tmp_path):
    cache(tmp_path).write(0, chunk(4))
    with pytest.raises(
        DataError, match=r"features-\w+-000000.npz .*image is \(4, 5\) float32, not \(3, 5\).*delete the"
    ):
        cache(tmp_path).read(0, 3)


@pytest.mark.parametrize("kind", ["features", "texts"])
@pytest.mark.parametrize("harm", ["cut", "empty", "flip", "other"])
def test_broken_files_are_named(tmp_path, kind, harm):
    cache(tmp_path).write(0, chunk(40))
    TextCache(str(tmp_path), model()).write([f"t{i}" for i in range(40)], chunk(40).image)  # type: ignore[arg-type]
    (path,) = (p for p in Path(tmp_path).rglob("*.npz") if p.name.startswith(kind))
    body = bytearray(path.read_bytes())
    at = body.index(chunk(40).image.tobytes()[:16]) + 3
    body[at] ^= 1
    path.write_bytes({"cut": body[:-30], "empty": b"", "flip": body, "other": b"\x93NUMPY???"}[harm])
    features, texts = cache(tmp_path), TextCache(str(tmp_path), model())  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"{kind}-.*npz cannot be read \(.*\); delete the file"):
        _ = features.read(0, 40) if kind == "features" else texts.read(["t7"])


def test_texts_are_found_in_all_files_of_the_model(tmp_path):
    rows = {f"text {i} \u00fc": np.full(5, i, np.float32) for i in range(9)}
    names = list(rows)
    for some in (names[:4], names[4:6], names[5:8]):
        TextCache(str(tmp_path), model()).write(some, np.stack([rows[t] for t in some]))  # type: ignore[arg-type]
    found, features = TextCache(str(tmp_path), model()).read([names[7], names[0], names[8], names[5]])  # type: ignore[arg-type]
    assert sorted(found) == sorted([names[7], names[0], names[5]])
    assert all(np.array_equal(row, rows[text]) for text, row in zip(found, features, strict=True))
    nothing, features = TextCache(str(tmp_path), model(digest="1" * 32)).read(names)  # type: ignore[arg-type]
    assert nothing == []
    assert features.shape == (0, 5)
