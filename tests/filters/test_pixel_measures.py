"""Scores that are computed from pixels alone: sizes, quality, hashes, checksums; through the real shared pass."""

import hashlib
import io
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from curate.errors import DataError
from curate.filters.memory import MemoryPool
from curate.filters.pixel_reader import reduce_to
from curate.filters.scorers.checksum import Checksum, pixel_checksum
from curate.filters.scorers.image_quality import (
    ImageQuality,
    blankness,
    brightness_and_contrast,
    colourfulness,
    entropy,
    luma,
    sharpness,
)
from curate.filters.scorers.image_size import ImageSize
from curate.filters.scorers.perceptual_hash import PerceptualHash, perceptual_hash
from curate.shards.image_pass import read_images
from curate.shards.shard import Shard
from curate.shards.tar import TarWriter


def encoded(rgb: np.ndarray, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, form, **options)
    return file.getvalue()


def write_shard(folder, name: str, rows: list[tuple[bytes | None, str]]) -> Shard:
    """Rows are (image file or None, status)."""
    keys = [f"{name}{i:06d}" for i in range(len(rows))]
    with TarWriter(str(folder / f"{name}.tar")) as tar:
        for key, (body, _) in zip(keys, rows, strict=True):
            if body is not None:
                tar.write(key, {"png": body})
    table = pa.table({"key": pa.array(keys, pa.string()), "status": pa.array([s for _, s in rows], pa.string())})
    pq.write_table(table, folder / f"{name}.parquet")
    return Shard(name, str(folder / f"{name}.tar"), str(folder / f"{name}.parquet"))


def columns_of(shards, scorers, threads=0) -> list[dict[str, list]]:
    """Per shard, all columns of the scorers ``name -> scorer``, as Python values."""
    readers = [scorer.reader(name) for name, scorer in scorers.items()]
    read_images(shards, readers, threads)
    found = []
    for index in range(len(shards)):
        merged = {}
        for reader in readers:
            for name, values in reader.result(index).items():
                merged[name] = values if isinstance(values, pa.Array) else pa.array(values)
        found.append({name: values.to_pylist() for name, values in merged.items()})
    return found


def scans() -> list[np.ndarray]:
    """Real pictures: two photographs at three sizes and twenty handwritten digits."""
    pictures = []
    for photograph in load_sample_images().images:
        pictures += [photograph, reduce_to(photograph, 256), np.ascontiguousarray(photograph[50:350, 100:500])]
    digits = (load_digits().images[:20] * 15.9375).astype(np.uint8)
    return pictures + [np.repeat(np.kron(d, np.ones((4, 4), np.uint8))[:, :, None], 3, axis=2) for d in digits]


PICTURES = scans()
SCORERS = {
    "size": ImageSize(),
    "quality": ImageQuality(),
    "hash": PerceptualHash(),
    "hash8": PerceptualHash(invariant="rotations"),
    "sum": Checksum(),
}


def test_rows_without_a_picture_are_null_and_nothing_depends_on_shards_or_threads(tmp_path):
    bodies = [encoded(p) for p in PICTURES[:12]]
    rows = [(body, "success") for body in bodies]
    rows[2:2] = [(None, "failed_to_download"), (None, "success"), (b"no picture", "success")]
    whole = columns_of([write_shard(tmp_path, "a", rows)], SCORERS)[0]
    parts = [write_shard(tmp_path, f"b{i}", rows[a:b]) for i, (a, b) in enumerate([(0, 1), (1, 4), (4, 4), (4, 15)])]
    split = columns_of(parts, SCORERS, threads=3)
    for name, values in whole.items():
        joined = [value for part in split for value in part[name]]
        assert repr(joined) == repr(values)
        blank = values[2:5]
        assert blank == [None] * 3 or all(isinstance(b, float) and math.isnan(b) for b in blank)
        assert all(value is not None and value == value for value in values[:2] + values[5:])


def test_types_are_what_the_docs_say(tmp_path):
    shards = [write_shard(tmp_path, "a", [(None, "failed_to_download")] * 3), write_shard(tmp_path, "e", [])]
    readers = [scorer.reader(name) for name, scorer in SCORERS.items()]
    read_images(shards, readers)
    columns = {}
    for reader in readers:
        columns |= reader.result(0)
        assert all(len(values) == 0 for values in reader.result(1).values())
    types = {name: v.type if isinstance(v, pa.Array) else pa.from_numpy_dtype(v.dtype) for name, v in columns.items()}
    assert types["size"] == pa.int32()
    assert types["size_bytes"] == pa.int64()
    assert types["size_aspect"] == types["quality"] == types["quality_sharpness"] == pa.float32()
    assert types["hash"] == types["hash8"] == pa.uint64()
    assert types["sum"] == types["sum_file"] == pa.string()


def test_a_hash_survives_parquet_to_the_last_bit(tmp_path):
    shard = write_shard(tmp_path, "a", [(encoded(PICTURES[0]), "success"), (None, "failed_to_download")])
    reader = PerceptualHash().reader("h")
    read_images([shard], [reader])
    table = pa.table(reader.result(0))
    pq.write_table(table, tmp_path / "h.parquet")
    assert pq.read_table(tmp_path / "h.parquet").equals(table)
    assert table["h"].to_pylist() == [perceptual_hash(PICTURES[0]), None]
    assert perceptual_hash(PICTURES[0]) > 2**63  # the highest bit, of the mean, is used


def test_scoring_columns_without_shards_is_refused():
    with pytest.raises(DataError, match="needs shards"):
        MemoryPool.of([pa.table({"uid": pa.array(["0" * 32])})]).score("s", ImageSize())


def test_sizes(tmp_path):
    body = encoded(PICTURES[0][:30, :100])
    found = columns_of([write_shard(tmp_path, "a", [(body, "success")])], {"s": ImageSize()})[0]
    assert found["s"] == found["s_height"] == [30]
    assert found["s_width"] == [100]
    assert found["s_aspect"] == [pytest.approx(100 / 30)]
    assert found["s_bytes"] == [len(body)]


# --- quality

PIXELS = arrays(np.uint8, st.tuples(st.integers(3, 12), st.integers(3, 12), st.just(3)))


@settings(max_examples=60, deadline=None)
@given(PIXELS, st.integers(0, 10))
def test_measures_equal_naive_ones(rgb, tolerance):
    grey = luma(rgb)
    flat = grey.astype(np.float64)
    counts = np.bincount(grey.ravel(), minlength=256)
    laplacian = [
        flat[y - 1, x] + flat[y + 1, x] + flat[y, x - 1] + flat[y, x + 1] - 4 * flat[y, x]
        for y in range(1, flat.shape[0] - 1)
        for x in range(1, flat.shape[1] - 1)
    ]
    assert sharpness(grey) == pytest.approx(np.var(laplacian), abs=1e-9)
    assert brightness_and_contrast(counts) == pytest.approx((flat.mean(), flat.std()), abs=1e-9)
    shares = [n / flat.size for n in counts if n]
    assert entropy(counts) == pytest.approx(-sum(p * math.log2(p) for p in shares), abs=1e-9)
    windows = [((flat >= low) & (flat <= low + 2 * tolerance)).mean() for low in range(256 - 2 * tolerance)]
    assert blankness(counts, tolerance) == pytest.approx(max(windows))
    r, g, b = (rgb[:, :, i].astype(np.float64) for i in range(3))
    rg, yb = r - g, (r + g) / 2 - b
    colour = math.hypot(rg.std(), yb.std()) + 0.3 * math.hypot(rg.mean(), yb.mean())
    assert colourfulness(rgb) == pytest.approx(colour, abs=1e-9)


def test_golden_pictures():
    blank = np.full((20, 30, 3), 77, np.uint8)
    counts = np.bincount(luma(blank).ravel(), minlength=256)
    assert entropy(counts) == sharpness(luma(blank)) == colourfulness(blank) == 0
    assert blankness(counts, 0) == 1
    board = np.indices((4, 4)).sum(axis=0) % 2 * 255
    grey = board.astype(np.uint8)
    assert sharpness(grey) == (4 * 255) ** 2  # the Laplacian is +-4 * 255, as often either
    counts = np.bincount(grey.ravel(), minlength=256)
    assert entropy(counts) == 1
    assert blankness(counts, 2) == 0.5
    assert brightness_and_contrast(counts) == (127.5, 127.5)
    every = np.full(256, 3)
    assert entropy(every) == 8
    assert blankness(every, 127) == pytest.approx(255 / 256)
    assert math.isnan(sharpness(np.zeros((2, 9), np.uint8)))


def test_quality_tells_what_it_should_and_not_the_resolution(tmp_path):
    from PIL import ImageFilter

    photograph = Image.fromarray(PICTURES[0])
    blurred = np.asarray(photograph.filter(ImageFilter.GaussianBlur(4)))
    half = np.asarray(photograph.resize((320, 214), Image.Resampling.LANCZOS))
    rows = [(encoded(rgb), "success") for rgb in (PICTURES[0], blurred, half)]
    found = columns_of([write_shard(tmp_path, "a", rows)], {"q": ImageQuality()})[0]
    sharp, soft, small = found["q_sharpness"]
    assert soft < sharp / 4
    assert small == pytest.approx(sharp, rel=0.5)
    for column in ("q", "q_brightness", "q_contrast", "q_colourfulness"):
        assert found[column][2] == pytest.approx(found[column][0], rel=0.05)


# --- hashes


def distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def eight(rgb: np.ndarray) -> list[np.ndarray]:
    mirrored = [rgb, rgb[:, ::-1], rgb[::-1], rgb[::-1, ::-1]]
    return [np.ascontiguousarray(m) for m in mirrored + [m.transpose(1, 0, 2) for m in mirrored]]


@pytest.mark.parametrize("method", ["phash", "dhash"])
def test_bits_are_those_of_imagehash(method):
    imagehash = pytest.importorskip("imagehash", reason="ImageHash is only compared with")
    for rgb in PICTURES:
        assert f"{perceptual_hash(rgb, method):016x}" == str(getattr(imagehash, method)(Image.fromarray(rgb)))


@pytest.mark.parametrize("method", ["phash", "dhash"])
def test_orientations_share_a_hash_and_pictures_do_not(method):
    flips, turns = set(), set()
    for rgb in PICTURES:
        turned = [perceptual_hash(t, method, "rotations") for t in eight(rgb)]
        assert len(set(turned)) == 1
        mirrored = [perceptual_hash(t, method, "flip") for t in eight(rgb)[:2]]
        assert len(set(mirrored)) == 1
        assert turned[0] <= mirrored[0]  # the smallest of more
        flips.add(mirrored[0])
        turns.add(turned[0])
    assert perceptual_hash(PICTURES[0], method) != perceptual_hash(eight(PICTURES[0])[1], method)
    # three pictures of each photograph may share one
    assert len(flips) >= len(turns) >= len(PICTURES) - 4


@pytest.mark.parametrize("invariant", ["none", "flip", "rotations"])
def test_near_copies_are_near_and_others_far(invariant):
    china, flower = load_sample_images().images
    for photograph in (china, flower):
        small = Image.fromarray(photograph).resize((213, 142), Image.Resampling.LANCZOS)
        copy = np.asarray(Image.open(io.BytesIO(encoded(np.asarray(small), "JPEG", quality=60))))
        assert distance(perceptual_hash(photograph, "phash", invariant), perceptual_hash(copy, "phash", invariant)) <= 4
    assert distance(perceptual_hash(china, "phash", invariant), perceptual_hash(flower, "phash", invariant)) >= 16


@settings(max_examples=40, deadline=None, derandomize=True)  # a tie within float32 noise is possible, if rare
@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
def test_any_pixels_have_a_hash(rgb):
    for method in ("phash", "dhash"):
        assert 0 <= perceptual_hash(rgb, method) < 2**64
        assert len({perceptual_hash(t, method, "rotations") for t in eight(rgb)}) == 1


def test_a_symmetric_picture_is_not_decided_by_noise():
    half = PICTURES[0][:200, :200]
    whole = np.concatenate([half, half[:, ::-1]], axis=1)
    assert len({perceptual_hash(t, "phash", "flip") for t in eight(whole)[:2]}) == 1
    flat = np.full((40, 50, 3), 90, np.uint8)
    assert perceptual_hash(flat) == perceptual_hash(flat, "phash", "rotations") == 2**63  # the mean alone


# --- checksums


def test_pixels_are_summed_not_files(tmp_path):
    rgb = np.ascontiguousarray(PICTURES[1])
    files = [encoded(rgb), encoded(rgb, "PNG", compress_level=1), encoded(rgb, "WEBP", lossless=True), encoded(rgb[1:])]
    found = columns_of([write_shard(tmp_path, "a", [(f, "success") for f in files])], {"c": Checksum()})[0]
    assert found["c_file"] == [hashlib.sha256(f).hexdigest() for f in files]
    assert len(set(found["c_file"])) == 4
    assert found["c"][0] == found["c"][1] == found["c"][2] != found["c"][3]
    height, width = rgb.shape[:2]
    assert found["c"][0] == hashlib.sha256(f"{width}x{height}\n".encode() + rgb.tobytes()).hexdigest()
    assert pixel_checksum(rgb) == pixel_checksum(rgb.transpose(1, 0, 2).copy().transpose(1, 0, 2))
    assert pixel_checksum(rgb.reshape(-1, 1, 3)) != pixel_checksum(rgb)
