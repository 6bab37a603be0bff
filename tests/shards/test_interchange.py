"""Interchange in both directions: what we write is read by webdataset, open_clip and tarfile; what others write, by us.

Foreign shards are replicas made by Python's own tarfile, name for name, field for field and in member order, of what
img2dataset, DataComp's resharder and CC12M-style scripts leave behind. C1-C10: the formats' contract.
"""

import functools
import io
import json
import logging
import random
import tarfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from curate.shards.existing import read_existing
from curate.shards.match import find_pool, kept_by_match, match_shard, settle
from curate.shards.reshard import finish_shards, plan_shards, write_shard
from curate.shards.tar import TarReader, TarWriter
from curate.shards.uid import RECORD, read_subset, stable_uid, to_records, write_subset

MEMBERS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


def picture(number: int, kind: str = "jpg", side: int = 16) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side + number % 3), (number * 37 % 256, number % 256, 99)).save(file, MEMBERS[kind])
    return file.getvalue()


def foreign_tar(path: Path, members: list[tuple[str, bytes]], mtime: float = 1_700_000_000.25) -> None:
    """As webdataset's TarWriter, which img2dataset and DataComp use, writes it: USTAR, `bigdata`, mode 0444, now."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o444, mtime
            info.uname = info.gname = "bigdata"
            archive.addfile(info, io.BytesIO(data))


def img2dataset(
    folder: Path,
    shard: int,
    *,
    digits: int = 5,
    kind: str = "jpg",
    hashed: str | None = "sha256",
    extra: tuple[str, ...] = (),
    rows: int = 12,
    unsorted: bool = False,
    texts: bool = True,
) -> list[str]:
    """One img2dataset shard; every fourth row failed. Returns the keys of the successes in tar order."""
    name = f"{shard:0{digits}d}"
    per = 4  # digits for 10,000 rows per shard
    keys = [f"{shard * 10**per + row:0{per + digits}d}" for row in range(rows)]
    table: dict[str, list[Any]] = {c: [f"{c} {shard} {r}" for r in range(rows)] for c in extra if c != "uid"}
    if "uid" in extra:
        table = {"uid": [stable_uid(str(shard), str(r)) for r in range(rows)], **table}
    good = [row % 4 != 3 for row in range(rows)]
    table["caption"] = [f"caption {shard} {r}" for r in range(rows)]
    table["url"] = [f"http://example.com/{shard}/{r}" for r in range(rows)]
    table["key"] = keys
    table["status"] = ["success" if g else "failed_to_download" for g in good]
    table["error_message"] = [None if g else "HTTP Error 404: Not Found" for g in good]
    table["width"] = [16 if g else None for g in good]
    table["height"] = [16 + r % 3 if g else None for r, g in enumerate(good)]
    table["original_width"], table["original_height"] = (
        [64 if g else None for g in good],
        [64 if g else None for g in good],
    )
    table["exif"] = ["{}" if g else None for g in good]
    if hashed:
        table[hashed] = [f"{hashed}-{r}" if g else None for r, g in enumerate(good)]
    members: list[tuple[str, bytes]] = []
    order = [r for r in range(rows) if good[r]]
    if unsorted:  # img2dataset writes in order of arrival
        random.Random(shard).shuffle(order)
    for row in order:
        sample = {
            kind: picture(row, kind),
            "json": json.dumps({c: v[row] for c, v in table.items()}, indent=4).encode(),
        }
        if texts:
            sample["txt"] = table["caption"][row].encode()
        members += [(f"{keys[row]}.{e}", sample[e]) for e in sorted(sample)]
    foreign_tar(folder / f"{name}.tar", members)
    integers = {c: pa.int32() for c in ("width", "height", "original_width", "original_height")}
    columns = {c: pa.array(v, integers.get(c, pa.string())) for c, v in table.items()}
    pq.write_table(pa.table(columns), folder / f"{name}.parquet", compression="snappy", row_group_size=100)
    facts = {"count": rows, "successes": sum(good), "failed_to_download": rows - sum(good), "failed_to_resize": 0}
    more = {"duration": 1.5, "start_time": 1.0, "end_time": 2.5, "status_dict": {"success": sum(good)}}
    (folder / f"{name}_stats.json").write_text(json.dumps({**facts, **more}, indent=4))
    return [keys[row] for row in order]


def reshard(pool: Path, subset: Path, out: Path, **options: Any) -> Any:
    """The library's steps, one after the other, as `curate reshard` runs them."""
    found = find_pool(str(pool))
    notes = str(out / ".reshard")
    for shard in found.shards:
        match_shard(shard, str(subset), notes, False)
    settled = settle(found.shards, str(subset), notes, False)
    plan = plan_shards(settled.counts, **options)
    kept = kept_by_match(notes, [s.name for s in settled.shards])
    for k in range(len(plan)):
        write_shard(plan, k, settled.shards, kept, str(out))
    finish_shards(plan, str(out), str(subset))
    return settled


@pytest.mark.parametrize("digits", [5, 8])
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize("hashed", ["sha256", "md5", "sha512", None])
def test_img2dataset_folders_are_read(tmp_path: Path, digits: int, kind: str, hashed: str | None) -> None:
    """C6, C7: 5- and 8-digit names, any image format, any of the three hashes, extra columns carried, keys unsorted."""
    keys = img2dataset(
        tmp_path, 3, digits=digits, kind=kind, hashed=hashed, extra=("NSFW", "similarity"), unsorted=True
    )
    stem = tmp_path / f"{3:0{digits}d}"
    assert TarReader(f"{stem}.tar").require_whole().keys == keys
    table, stats = read_existing(f"{stem}.tar", f"{stem}.parquet")
    assert (stats["rows"], stats["successes"]) == (12, 9)
    rows = {row["key"]: row for row in table.to_pylist()}
    assert {key for key, row in rows.items() if row["status"] == "success"} == set(keys)
    for key in keys:
        row = rows[key]
        number = int(key) % 10_000
        assert (row["caption"], row["NSFW"]) == (f"caption 3 {number}", f"NSFW 3 {number}")
        assert (row["width"], row["height"], row["original_width"]) == (16, 16 + number % 3, 64)
        assert TarReader(f"{stem}.tar").read(key, kind) == picture(number, kind)


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("table", [True, False])
def test_shards_without_text_or_table(tmp_path: Path, texts: bool, table: bool) -> None:
    """C6: a missing txt is made up by json or parquet, a missing parquet by json."""
    keys = img2dataset(tmp_path, 0, extra=("uid",), texts=texts)
    found, stats = read_existing(str(tmp_path / "00000.tar"), str(tmp_path / "00000.parquet") if table else None)
    assert stats["successes"] == 9
    rows = {row["key"]: row for row in found.to_pylist()}
    for key in keys:
        assert rows[key]["caption"] == f"caption 0 {int(key)}"
        assert rows[key]["uid"] == stable_uid("0", str(int(key)))


def test_cc12m_style_tars(tmp_path: Path) -> None:
    """txt + jpg and nothing beside the tar; txt comes after jpg, keys are what they are."""
    members = []
    for number in (7, 3, 11):
        members += [(f"cc/{number}.jpg", picture(number)), (f"cc/{number}.txt", b"a caption\nof two lines %d" % number)]
    foreign_tar(tmp_path / "cc12m-train-0000.tar", members)
    table, stats = read_existing(str(tmp_path / "cc12m-train-0000.tar"), None)
    assert stats["successes"] == 3
    assert table["key"].to_pylist() == ["cc/7", "cc/3", "cc/11"]
    assert table["caption"].to_pylist() == [f"a caption\nof two lines {n}" for n in (7, 3, 11)]
    assert len(set(table["uid"].to_pylist())) == 3


def test_ours_looks_like_img2datasets_to_tarfile(tmp_path: Path) -> None:
    """C6: member order, owner, mode, type and format as webdataset's writer leaves them; mtime fixed."""
    with TarWriter(str(tmp_path / "ours.tar")) as ours:
        ours.write("000000010003", {"txt": b"a", "jpg": b"b", "json": b"{}"})
    with webdataset.TarWriter(str(tmp_path / "theirs.tar"), mtime=0) as theirs:  # type: ignore[attr-defined]
        theirs.write({"__key__": "000000010003", "txt": b"a", "jpg": b"b", "json": b"{}"})
    with tarfile.open(tmp_path / "ours.tar") as a, tarfile.open(tmp_path / "theirs.tar") as b:
        for mine, other in zip(a, b, strict=True):
            for name in ("name", "size", "mode", "uname", "gname", "uid", "gid", "type", "mtime", "offset_data"):
                assert getattr(mine, name) == getattr(other, name), name


@pytest.fixture(scope="module")
def datacomp(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A DataComp pool of 4 shards, a subset with repeats, and the expected member names' stems."""
    folder = tmp_path_factory.mktemp("datacomp")
    (folder / "shards").mkdir()
    uids = []
    for shard in range(4):
        keys = img2dataset(folder / "shards", shard, digits=8, extra=("uid",))
        uids += [stable_uid(str(shard), str(int(key) % 10_000)) for key in keys]
    chosen = [uid for i, uid in enumerate(uids) for _ in range(i % 3)]
    write_subset(str(folder / "subset.npy"), to_records(chosen))
    counts = Counter(chosen)
    return folder / "shards", folder / "subset.npy", [f"{uid}-{j}" for uid in counts for j in range(counts[uid])]


@pytest.mark.parametrize("raw", [False, True])
def test_datacomps_resharded_layout(datacomp: tuple[Path, Path, list[str]], tmp_path: Path, raw: bool) -> None:
    """C1, C2, C8, C9, C10: names, members, payloads, stats, sample_ids.npy, meta.json and sizes.json."""
    pool, subset, stems = datacomp
    if raw:
        headerless = tmp_path / "subset.raw"
        headerless.write_bytes(subset.read_bytes()[128:])
        subset = headerless
    out = tmp_path / "out"
    out.mkdir()
    reshard(pool, subset, out, samples_per_shard=10, shuffle=False)
    payloads = {}
    for path in sorted(pool.glob("*.tar")):
        table = pq.read_table(path.with_suffix(".parquet"), columns=["key", "uid"])
        uids = dict(zip(table["key"].to_pylist(), table["uid"].to_pylist(), strict=True))
        for key, sample in TarReader(str(path)).samples():
            payloads[uids[key]] = sample
    names, sizes = [], {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as archive:
            members = archive.getmembers()
            for member in members:
                stem, _, extension = member.name.partition(".")
                file = archive.extractfile(member)
                assert file is not None
                assert file.read() == payloads[stem.rpartition("-")[0]][extension]
        grouped = [m.name.partition(".")[0] for m in members[::3]]
        assert [m.name for m in members] == [f"{s}.{e}" for s in grouped for e in ("jpg", "json", "txt")]
        names += grouped
        sizes[path.name] = len(grouped)
        assert json.loads(path.with_name(f"{path.stem}_stats.json").read_text()) == {"successes": len(grouped)}
    assert names == stems
    assert list(sizes) == [f"{k:08d}.tar" for k in range(len(sizes))]
    assert json.loads((out / "sizes.json").read_text()) == sizes
    assert (out / "sample_ids.npy").read_bytes() == subset.read_bytes()
    assert read_subset(str(out / "sample_ids.npy")).dtype == RECORD
    meta = json.loads((out / "meta.json").read_text())
    assert type(meta["output_shard_count"]) is int
    assert meta["output_shard_format"].format(2) == "00000002.tar"
    assert meta["output_count"] == len(stems)


def test_resharded_shards_are_a_pool_again(datacomp: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    """C8: DataComp's resharded tars have no table; uids come from json, repeats are rows that share a uid."""
    pool, subset, stems = datacomp
    first, second = tmp_path / "1", tmp_path / "2"
    reshard(pool, subset, first, samples_per_shard=10)
    settled = reshard(first, subset, second, samples_per_shard=7, shuffle=False)
    assert len(settled.missing) == 0
    found = [key for path in sorted(second.glob("*.tar")) for key in TarReader(str(path)).keys]
    assert sorted(found) == sorted(stems)


def test_webdataset_reads_ours(datacomp: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    """C8, C10: brace pattern, decoding, grouping."""
    pool, subset, stems = datacomp
    reshard(pool, subset, tmp_path, samples_per_shard=10, seed=3)
    last = len(list(tmp_path.glob("*.tar"))) - 1
    pattern = str(tmp_path / f"{{00000000..{last:08d}}}.tar")
    found = list(webdataset.WebDataset(pattern, shardshuffle=False).decode("pil"))
    assert sorted(s["__key__"] for s in found) == sorted(stems)
    for sample in found:
        assert sample["json"]["caption"] == sample["txt"]
        assert sample["json"]["uid"] == sample["__key__"].rpartition("-")[0]
        assert sample["jpg"].size[0] == 16


@pytest.mark.parametrize("size_file", ["sizes.json", "__len__"])
def test_open_clips_loader_reads_ours(
    datacomp: tuple[Path, Path, list[str]], tmp_path: Path, size_file: str, caplog: pytest.LogCaptureFixture
) -> None:
    """C10: open_clip finds the size beside the first shard and trains on image and txt; repeats are batches too."""
    data = pytest.importorskip("open_clip_train.data")
    from torchvision import transforms

    pool, subset, stems = datacomp
    reshard(pool, subset, tmp_path, samples_per_shard=10, seed=3)
    if size_file == "__len__":
        (tmp_path / "sizes.json").unlink()
        (tmp_path / "__len__").write_text(str(len(stems)))
    last = len(list(tmp_path.glob("*.tar"))) - 1
    pattern = str(tmp_path / f"{{00000000..{last:08d}}}.tar")
    assert data.expand_urls(pattern)[0] == [str(tmp_path / f"{k:08d}.tar") for k in range(last + 1)]
    assert data.get_dataset_size(pattern) == (len(stems), last + 1)
    options = SimpleNamespace(
        train_data=pattern, val_data=pattern, train_num_samples=None, val_num_samples=None, dataset_resampled=False,
        train_data_upsampling_factors=None, seed=0, batch_size=4, workers=0, world_size=1, distributed=False,
    )  # fmt: skip
    preprocess = transforms.Compose([transforms.Resize((8, 8)), transforms.ToTensor()])
    texts = []

    def tokenizer(text: str) -> list[np.ndarray]:
        texts.append(text)
        return [np.array([len(text)])]

    with caplog.at_level(logging.WARNING):
        info = data.get_wds_dataset(options, preprocess, is_train=False, tokenizer=tokenizer)
        seen = sum(len(images) for images, _ in info.dataloader)
    assert seen == len(stems)
    assert not [r for r in caplog.records if "Handling webdataset error" in r.message]
    captions = Counter(
        json.loads(sample["json"])["caption"]
        for path in tmp_path.glob("*.tar")
        for _, sample in TarReader(str(path)).samples()
    )
    assert Counter(texts) == captions


def test_pools_with_holes_are_used_and_told(datacomp: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    """C2, C6: gaps in the numbers, missing statistics, a torn tar, a broken table, uids that the pool lacks."""
    shards = tmp_path / "shards"
    shards.mkdir()
    numbers = (0, 1, 4, 5, 9)
    uids = {}
    for shard in numbers:
        keys = img2dataset(shards, shard, extra=("uid",), unsorted=shard == 5)
        uids[shard] = [stable_uid(str(shard), str(int(key) % 10_000)) for key in keys]
    (shards / "00004_stats.json").unlink()
    (shards / "00005.parquet").write_bytes(b"PAR1")  # the uids are in json, too
    torn = (shards / "00009.tar").read_bytes()
    fifth = 4 * 3 + 1  # members before the tear: four samples and an image
    at = 0
    for _ in range(fifth):
        at += 512 + -(-int(torn[at + 124 : at + 135], 8) // 512) * 512
    (shards / "00009.tar").write_bytes(torn[:at])
    wanted = [u for found in uids.values() for u in found]
    lost = uids[9][4:]
    nowhere = ["0" * 31 + "1", "f" * 32]
    write_subset(str(tmp_path / "s.npy"), to_records(wanted + nowhere))
    found = find_pool(str(shards))
    assert (found.gaps, found.no_stats) == (["2-3", "6-8"], ["00004"])
    settled = reshard(shards, tmp_path / "s.npy", tmp_path / "out", samples_per_shard=100, shuffle=False)
    assert sorted(settled.missing.tolist()) == sorted(to_records(lost + nowhere).tolist())
    assert len(settled.torn) == 2
    assert any("00005.parquet" in t for t in settled.torn)
    assert any("00009.tar: no end-of-archive mark" in t for t in settled.torn)
    written = [key.rpartition("-")[0] for key in TarReader(str(tmp_path / "out" / "00000000.tar")).keys]
    assert written == [u for u in wanted if u not in lost]


def test_short_and_upper_case_uids_of_others(tmp_path: Path) -> None:
    """C1: uids that lost their leading zeros are the same uids."""
    with TarWriter(str(tmp_path / "a.tar")) as tar:
        for i, uid in enumerate(("1F", "0" * 30 + "2a", "", None, 7)):
            tar.write(f"{i}", {"jpg": b"x", "json": json.dumps({"uid": uid}).encode()})
        tar.write("5", {"jpg": b"x", "json": b"[" * 100_000})
        tar.write("6", {"jpg": b"x"})
    write_subset(str(tmp_path / "s.npy"), to_records(["1f", "2a", "3"]))
    match = functools.partial(match_shard, find_pool(str(tmp_path)).shards[0], str(tmp_path / "s.npy"))
    assert match(str(tmp_path / "notes"), False) == {"samples": 7, "matched": 2, "without_uid": 5, "torn": None}
    settled = reshard(tmp_path, tmp_path / "s.npy", tmp_path / "out", shuffle=False)
    assert settled.missing.tolist() == [(0, 3)]
    assert TarReader(str(tmp_path / "out" / "00000000.tar")).keys == ["0" * 30 + "1f-0", "0" * 30 + "2a-0"]
