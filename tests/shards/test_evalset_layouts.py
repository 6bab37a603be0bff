"""Image folders and parquet files as evaluation sets, sources, and sets in an object store or behind a web server."""

import functools
import http.server
import io
import json
import shutil
import threading
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from curate.errors import ConfigError, DataError
from curate.shards.evalsets import write
from curate.shards.evalsets.open import layout_of, open_evalset
from curate.shards.evalsets.parquet import files_by_split
from curate.shards.evalsets.source import EvalSource, EvalSourceOption


def picture(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def files(folder: Path, names: dict[str, bytes]) -> str:
    for name, body in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return str(folder)


def test_folder_of_splits_and_of_classes(tmp_path: Path) -> None:
    names = {"test/b/2.png": picture(2), "test/a/10.png": picture(10), "test/a/9.png": picture(9)}
    folder = files(tmp_path / "pets", names | {"train/a/1.png": picture(1), "templates.md": b"not a template"})
    opened = open_evalset(folder)
    assert (opened.name, opened.classnames, opened.templates) == ("pets", ("a", "b"), ())
    assert opened.split_names() == ["test", "train"]
    split = opened.split("test")
    assert split.keys == ["a/10.png", "a/9.png", "b/2.png"]  # in the order of their bytes
    assert split.labels.tolist() == [0, 0, 1]
    assert [split.image(i) for i in range(3)] == [picture(10), picture(9), picture(2)]
    with pytest.raises(DataError, match="has no split 'val'; it has test, train"):
        opened.split("val")
    flat = files(tmp_path / "flat", {"a/1.png": picture(1), "b/1.png": picture(2)})
    assert open_evalset(flat).split("test").labels.tolist() == [0, 1]
    for odd, message in (({"a/x/1.png": b"", "a/1.png": b""}, "different depths"), ({"1.png": b""}, "lies in neither")):
        with pytest.raises(DataError, match=message):
            open_evalset(files(tmp_path / message, odd))


def test_class_names_of_folders(tmp_path: Path) -> None:
    folder = files(tmp_path, {"test/n1/1.png": picture(1), "test/n2/1.png": picture(2)})
    for text, names, labels in (
        ("n2\nn1\n", ("n2", "n1"), [1, 0]),  # the same names in label order
        ("n0\nn1\nn2\n", ("n0", "n1", "n2"), [1, 2]),  # a class without pictures
        ("tench\ngoldfish\n", ("tench", "goldfish"), [0, 1]),  # what the folders are called
    ):
        (tmp_path / "classnames.txt").write_text(text)
        opened = open_evalset(folder)
        assert opened.classnames == names
        assert opened.split("test").labels.tolist() == labels
    (tmp_path / "classnames.txt").write_text("tench\n")
    with pytest.raises(DataError, match="2 class folders and 1 class names"):
        open_evalset(folder)


def test_folder_with_captions(tmp_path: Path) -> None:
    lines = [{"file": "b.png", "captions": ["two", "zwei"]}, {"file": "sub/a.png", "captions": ["one"]}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    folder = files(tmp_path, {"b.png": picture(2), "sub/a.png": picture(1), "captions.jsonl": text.encode()})
    opened = open_evalset(folder)
    split = opened.split("test")
    assert (opened.kind, split.keys) == ("retrieval", ["b.png", "sub/a.png"])
    assert split.captions is not None
    assert (split.captions.texts, split.captions.image.tolist()) == (("two", "zwei", "one"), [0, 0, 1])
    assert split.image(1) == picture(1)
    for line, message in (
        ({"file": "c.png", "captions": ["x"]}, "no picture 'c.png'"),
        ({"file": "../b.png", "captions": ["x"]}, "no path below"),
        ({"file": "b.png", "captions": [" "]}, "not blank"),
        ({"file": "b.png"}, "must be"),
    ):
        (tmp_path / "captions.jsonl").write_text(json.dumps(line))
        with pytest.raises(DataError, match=message):
            open_evalset(folder)


def test_folder_digest_sees_every_change_and_split_digest_the_pictures_alone(tmp_path: Path) -> None:
    folder = files(tmp_path, {"test/a/1.png": picture(1), "test/b/1.png": picture(2), "train/a/1.png": picture(3)})
    seen, test = set(), set()
    for name, body in (
        ("zeroshot_classification_templates.txt", b"a {c}\n"),
        ("test/labels.json", b"[[0], [1]]"),
        ("languages/DE.json", b'[[0], ["x"]]'),
        ("train/a/1.png", picture(4)),
        ("classnames.txt", b"b\na\n"),
    ):
        files(tmp_path, {name: body})
        seen.add(open_evalset(folder).digest)
        test.add(open_evalset(folder).split_digest("test"))
    assert (len(seen), len(test)) == (5, 1)
    files(tmp_path, {"test/a/1.png": picture(9)})
    assert open_evalset(folder).split_digest("test") not in test


def hub_table(labels: list[int], names: list[str] | None) -> pa.Table:
    image = [{"bytes": picture(i), "path": f"{i}.png"} for i in range(len(labels))]
    table = pa.table({"image": image, "label": pa.array(labels, pa.int64())})
    if names is None:
        return table
    info = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(info)})


def test_parquet_of_a_hub(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    labels = [i % 3 for i in range(90)]
    table = hub_table(labels, ["x", "y", "z"])
    for number in range(2):
        path = tmp_path / "data" / f"test-0000{number}-of-00002.parquet"
        pq.write_table(table.slice(number * 45, 45), path, row_group_size=20)
    opened = open_evalset(str(tmp_path))
    split = opened.split("test")
    assert (opened.classnames, opened.split_names()) == (("x", "y", "z"), ["test"])
    assert split.labels.tolist() == labels
    assert list(split.images()) == [picture(i) for i in range(90)]
    order = np.random.default_rng(0).permutation(90)
    assert [split.image(int(i)) for i in order] == [picture(int(i)) for i in order]
    with pytest.raises(IndexError):
        split.image(90)
    assert len(set(split.keys)) == 90


def test_parquet_columns_and_their_faults(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    table = pa.table(
        {
            "photo": [picture(0), picture(1), None],
            "kind": ["cat", "ant", "cat"],
            "tags": [[0], [0, 1], []],
            "caption": ["a", "b", "c"],
            "sentences": [["a", "b"], ["c"], ["d"]],
        }
    )
    pq.write_table(table, path)
    with pytest.raises(DataError, match="no column of pictures"):
        open_evalset(str(path))

    def opened(**options: object):
        return EvalSource(path=str(path), image="photo", **options).open()[0]

    names = opened(label="kind")
    assert (names.name, names.classnames, names.split("test").labels.tolist()) == ("test", ("ant", "cat"), [1, 0, 1])
    with pytest.raises(DataError, match="row 2 has no bytes"):
        names.split("test").image(2)
    with pytest.raises(DataError, match="numbers without names"):
        opened(label="tags")
    right = opened(label="tags", classnames=["p", "q"]).split("test").right
    assert right.tolist() == [[True, False], [True, True], [False, False]]
    with pytest.raises(DataError, match="label 2: 1 is outside 1 classes"):
        opened(label="tags", classnames=["p"]).split("test")
    captions = opened(captions="sentences").split("test").captions
    assert (captions.texts, captions.image.tolist()) == (("a", "b", "c", "d"), [0, 0, 1, 2])
    assert opened().split("test").captions.texts == ("a", "b", "c")
    with pytest.raises(DataError, match="unknown label column 'knd'; did you mean 'kind'"):
        opened(label="knd")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="no whole parquet file"):
        opened(label="kind")


def test_splits_by_file_names(tmp_path: Path) -> None:
    names = (
        "test.parquet",
        "data/train-00000-of-00002.parquet",
        "default/val/0000.parquet",
        "dev_2.parquet",
        "x y.parquet",
    )
    files(tmp_path, dict.fromkeys(names, b""))
    assert sorted(files_by_split(str(tmp_path))) == ["dev", "test", "train", "val", "x y"]


def test_layouts_are_told_by_names(tmp_path: Path) -> None:
    assert layout_of(files(tmp_path / "1", {"test/nshards.txt": b"0", "a/1.png": b""})) == "webdataset"
    assert layout_of(files(tmp_path / "2", {"test/0.tar": b""})) == "webdataset"
    assert layout_of(files(tmp_path / "3", {"a/1.png": b"", "classnames.txt": b""})) == "folder"
    assert layout_of(files(tmp_path / "4", {"data/test-0.parquet": b""})) == "parquet"
    for name, names in (("5", {"README.md": b""}), ("6", {})):
        with pytest.raises(DataError, match="no evaluation set at"):
            layout_of(files(tmp_path / name, names))


def small_set(folder: str) -> None:
    write.write_evalset(folder, ["a", "b"], ["a {c}"], {"test": [(picture(i), i % 2) for i in range(5)]}, 2)


def test_sources(tmp_path: Path) -> None:
    for name in ("wds_one_test", "wds_two"):
        small_set(str(tmp_path / "sets" / name))
    both = EvalSource.parse(str(tmp_path / "sets"))
    assert [one.name for one in both.open()] == ["one", "two"]
    one = EvalSource(path=str(tmp_path / "sets" / "wds_two"), name="mine", language="de", templates=["{} here"])
    (opened,) = one.open()
    assert (opened.name, opened.language, opened.prompts("b")) == ("mine", "de", ["b here"])
    (tmp_path / "names.txt").write_text("left\nright\n")
    renamed = EvalSource(path=one.path, classnames=str(tmp_path / "names.txt"))
    assert renamed.open()[0].classnames == ("left", "right")
    with pytest.raises(ConfigError, match="holds several sets; give `name`"):
        EvalSource(path=both.path, name="x").open()
    with pytest.raises(ConfigError, match="nothing is there"):
        EvalSource(path=str(tmp_path / "nowhere")).open()
    with pytest.raises(ConfigError, match="there is no file"):
        EvalSource(path=one.path, templates=str(tmp_path / "none.txt")).open()
    with pytest.raises(ConfigError, match="for the class name"):
        EvalSource(path=one.path, templates=["a photo"]).open()
    with pytest.raises(ConfigError, match="`label` is for parquet files"):
        EvalSource(path=one.path, label="x").open()
    identities = [source.identity() for source in (both, one, renamed, EvalSource(path=one.path))]
    assert len(set(identities)) == 4
    shutil.copytree(tmp_path / "sets" / "wds_two", tmp_path / "elsewhere" / "wds_two")
    assert one.at(str(tmp_path / "elsewhere" / "wds_two")).identity() == one.identity()
    (tmp_path / "names.txt").write_text("left\nup\n")
    assert renamed.identity() != identities[2]
    option = TypeAdapter(list[EvalSourceOption])
    assert option.validate_python(["x", {"path": "x"}]) == [EvalSource(path="x")] * 2
    with pytest.raises(ValidationError):
        option.validate_python([{"path": "x", "lang": "de"}])


def test_sets_in_an_object_store(tmp_path: Path) -> None:
    small_set("memory://evalset-test/sets/wds_small")
    files(tmp_path, {"test/a/1.png": picture(1), "test/b/1.png": picture(2)})
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path) + "/", "/evalset-test/folder/", recursive=True)
    pq.write_table(hub_table([0, 1], ["x", "y"]), tmp_path / "t.parquet")
    fs.put_file(str(tmp_path / "t.parquet"), "/evalset-test/hub/data/test-00000-of-00001.parquet")
    small_set(str(tmp_path / "wds_small"))
    (remote,) = EvalSource(path="memory://evalset-test/sets").open()
    local = open_evalset(str(tmp_path / "wds_small"))
    assert (remote.name, remote.digest) == ("small", local.digest)
    assert list(remote.split("test").images()) == list(local.split("test").images())
    for name, labels in (("folder", [0, 1]), ("hub", [0, 1])):
        split = open_evalset(f"memory://evalset-test/{name}").split("test")
        assert split.labels.tolist() == labels
        assert len(list(split.images())) == 2
    fs.rm("/evalset-test", recursive=True)


def test_sets_behind_a_web_server(tmp_path: Path) -> None:
    small_set(str(tmp_path / "wds_small"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    class Unlisted(Quiet):
        def list_directory(self, path):
            self.send_error(404)

    local = open_evalset(str(tmp_path / "wds_small"))
    for handler in (Quiet, Unlisted):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/wds_small"
            (opened,) = EvalSource(path=url).open()
            assert opened.split_names() == ["test"]
            assert opened.split("test").labels.tolist() == [0, 1, 0, 1, 0]
            assert opened.digest == local.digest
        finally:
            server.shutdown()
            server.server_close()
