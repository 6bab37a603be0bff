import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from curate.errors import DataError
from curate.shards.demo.digits import EVAL_TEMPLATES, WORDS, scans, split, write_digits_evalset
from curate.shards.evalsets.open import open_evalset
from curate.shards.evalsets.write import write_evalset
from curate.shards.tar import TarWriter


def picture(form: str, value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(file, form, lossless=True)
    return file.getvalue()


SAMPLES = [(picture("WEBP", 1), 0), (picture("PNG", 2), 1), (picture("JPEG", 3), 1), (picture("WEBP", 4), 0)]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    out = str(tmp_path / "wds_pets_test")
    write_evalset(
        out, ["cat", "dog {c}"], ["a {c}.", "one {}"], {"test": SAMPLES, "train": SAMPLES[:1]}, samples_per_tar=3
    )
    return out


def test_round_trip(folder: str) -> None:
    opened = open_evalset(folder + "/")
    assert (opened.name, opened.classnames, opened.kind) == ("pets", ("cat", "dog {c}"), "classification")
    assert opened.split_names() == ["test", "train"]
    test = opened.split("test")
    assert test.labels.dtype == np.int64
    assert test.labels.tolist() == [0, 1, 1, 0]
    assert list(test.images()) == [data for data, _ in SAMPLES]
    assert test.keys == ["s0000000", "s0000001", "s0000002", "s0000003"]
    assert len(opened.split("train")) == 1


def test_layout_is_clip_benchmarks(folder: str) -> None:
    root = Path(folder)
    names = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    assert names == [
        "classnames.txt",
        "test/0.tar",
        "test/1.tar",
        "test/nshards.txt",
        "train/0.tar",
        "train/nshards.txt",
        "zeroshot_classification_templates.txt",
    ]
    assert (root / "test/nshards.txt").read_text().strip() == "2"


def test_prompts_take_both_placeholders(folder: str) -> None:
    opened = open_evalset(folder)
    assert opened.prompts("cat") == ["a cat.", "one cat"]
    assert opened.prompts("dog {c}") == ["a dog {c}.", "one dog {c}"]  # a name is text, never a template
    assert opened.prompts("cat", ["my {}"]) == ["my cat"]


def test_same_arguments_same_bytes_and_digest_sees_every_change(folder: str, tmp_path: Path) -> None:
    again = str(tmp_path / "again")
    write_evalset(
        again, ["cat", "dog {c}"], ["a {c}.", "one {}"], {"test": SAMPLES, "train": SAMPLES[:1]}, samples_per_tar=3
    )
    assert open_evalset(again).digest == open_evalset(folder).digest
    for p in Path(folder).rglob("*"):
        if p.is_file():
            assert p.read_bytes() == (Path(again) / p.relative_to(folder)).read_bytes()
    changed = [(*SAMPLES[:3],), (*SAMPLES[:3], (SAMPLES[3][0], 1))]
    for number, samples in enumerate(changed):
        other = str(tmp_path / f"other{number}")
        write_evalset(other, ["cat", "dog {c}"], ["a {c}.", "one {}"], {"test": samples, "train": SAMPLES[:1]})
        assert open_evalset(other).digest != open_evalset(folder).digest


def test_webdataset_reads_it(folder: str) -> None:
    pipeline = webdataset.WebDataset(folder + "/test/{0..1}.tar", shardshuffle=False).decode("pil")
    read = [(s["__key__"], s["cls"], next(s[e] for e in ("webp", "png", "jpg") if e in s).size) for s in pipeline]
    assert read == [(f"s{i:07d}", label, (8, 8)) for i, (_, label) in enumerate(SAMPLES)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classnames.txt", None, "classnames.txt is missing"),
        ("classnames.txt", "cat\n\ndog\n", "line 2 is blank"),
        ("zeroshot_classification_templates.txt", "a photo\n", "no {c}"),
        ("test/nshards.txt", None, "no split 'test'"),
        ("test/nshards.txt", "many\n", "one integer"),
        ("test/nshards.txt", "3\n", "2.tar is missing"),
        ("classnames.txt", "cat\n", "label 1 is outside"),
    ],
)
def test_missing_and_broken_pieces_are_named(folder: str, name: str, text: str | None, message: str) -> None:
    path = Path(folder) / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=message):
        open_evalset(folder).split("test")


def test_no_templates_is_an_error_only_for_prompts(folder: str) -> None:
    (Path(folder) / "zeroshot_classification_templates.txt").unlink()
    opened = open_evalset(folder)
    assert len(opened.split("test")) == 4
    with pytest.raises(DataError, match="has no prompt templates"):
        opened.prompts("cat")


def test_torn_tar_and_incomplete_sample(folder: str) -> None:
    tar = Path(folder) / "test/0.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:580])
    with pytest.raises(DataError, match="no end-of-archive mark in 580 bytes"):
        open_evalset(folder).split("test")
    with TarWriter(str(tar)) as writer:
        writer.write("s0000000", {"webp": SAMPLES[0][0]})
    with pytest.raises(DataError, match="sample s0000000 has no cls"):
        open_evalset(folder).split("test")


def test_no_folder_and_other_types(folder: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing or empty"):
        open_evalset(str(tmp_path / "nowhere"))
    (Path(folder) / "dataset_type.txt").write_text("retrieval\n")
    with pytest.raises(DataError, match="has no txt member, which holds the captions of a retrieval set"):
        open_evalset(folder).split("test")


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    out = str(tmp_path)
    with pytest.raises(DataError, match="label 2 is outside"):
        write_evalset(out, ["a", "b"], ["{c}"], {"test": [(SAMPLES[0][0], 2)]})
    with pytest.raises(DataError, match="must be webp"):
        write_evalset(out, ["a", "b"], ["{c}"], {"test": [(b"GIF89a", 0)]})
    with pytest.raises(DataError, match="has no"):
        write_evalset(out, ["a", "b"], ["a photo"], {})
    assert not list(tmp_path.rglob("*.tar"))  # nothing torn is left under a final name


def test_digits_evalset_is_the_held_out_scans(tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        write_digits_evalset(folder)
    opened = open_evalset(folders[0])
    assert opened.digest == open_evalset(folders[1]).digest
    assert (opened.classnames, opened.templates) == (WORDS, EVAL_TEMPLATES)
    for name, size in (("test", 450), ("train", 200)):
        labels = opened.split(name).labels
        assert len(labels) == size
        assert (labels == scans().labels[split()[name]]).all()
        assert np.bincount(labels).min() >= size // 10 - 3
    shutil.rmtree(folders[1])
