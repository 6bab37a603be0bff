"""Batches run across sets: the end of one is filled up with the beginning of the next, and no feature changes."""

import io
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.errors import DataError
from curate.eval.embedding import embed_once
from curate.eval.embedding.embed_once import EmbedOnce
from curate.pretrain.encoders.classifier_encoder import LinearHead, VisualEncoder
from curate.pretrain.encoders.encoder import Encoder
from curate.pretrain.models.architecture import build, resolve_model
from curate.shards.evalsets.base import EvalSet, EvalSplit

CPU = torch.device("cpu")
BATCH = 8


class Split(EvalSplit):
    def __init__(self, name: str, bodies: list[bytes]) -> None:
        self.name, self.where = name, name
        self.keys = [f"k{i}" for i in range(len(bodies))]
        self.classes = np.zeros(len(bodies), np.int64)
        self.bodies = bodies

    def image(self, index: int) -> bytes:
        return self.bodies[index]


@dataclass(frozen=True)
class Set(EvalSet):
    parts: dict[str, Split] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return self.name

    def split_names(self) -> list[str]:
        return sorted(self.parts)

    def split(self, name: str) -> EvalSplit:
        return self.parts[name]


def a_set(name: str, bodies: list[bytes]) -> Set:
    return Set(name, f"/{name}", ("ant",), ("a {c}",), parts={"test": Split("test", bodies)})


def picture(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PICTURES = [picture(i) for i in range(40)]


def a_model(classifies: bool = False) -> Encoder:
    spec = resolve_model("ViT-mini-8-32")
    if classifies:
        model = VisualEncoder(build(spec, seed=4).visual, spec, None, CPU)
        model.head = LinearHead(("a", "b"), np.eye(2, model.dim, dtype=np.float32), np.zeros(2, np.float32))
    else:
        model = Encoder(build(spec, seed=1), spec, None, CPU)
    model.batch = BATCH
    return model


MODELS = [a_model(), a_model(classifies=True)]
ALONE = dict(zip(PICTURES, MODELS[0].encode_images(PICTURES), strict=True))


def counted(monkeypatch, model: Encoder) -> Counter:
    ran, plain = Counter(), model.submit

    def submit(images):
        ran["batches"] += 1
        return plain(images)

    monkeypatch.setattr(model, "submit", submit)
    return ran


def in_order(models, sets, **options):
    once = EmbedOnce(models, order=[(one.parts["test"], None) for one in sets], **options)
    return [once.embed(one, one.parts["test"]) for one in sets]


@pytest.mark.parametrize("sizes", [(3, 5, 9), (1, 1, 1, 1), (8, 8), (17, 2, 4, 1)])
def test_small_sets_cost_as_many_batches_as_one_large_one(monkeypatch, sizes):
    ran, starts = counted(monkeypatch, MODELS[0]), np.cumsum([0, *sizes])
    sets = [a_set(f"s{i}", PICTURES[a:b]) for i, (a, b) in enumerate(pairwise(starts))]
    in_order(MODELS[:1], sets, threads=1)
    assert ran["batches"] == -(-sum(sizes) // BATCH)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=25), min_size=1, max_size=5),
    st.integers(1, 3),
    st.sampled_from([5, 16, 1024]),
    st.sampled_from([1, 1 << 30]),
)
def test_no_feature_depends_on_what_comes_next(numbers, threads, chunk, remembered):
    sets = [a_set(f"s{i}", [PICTURES[n] for n in some]) for i, some in enumerate(numbers)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed_once, "CHUNK", chunk)
        patch.setattr(embed_once, "REMEMBERED", remembered)
        found = in_order(MODELS, sets, threads=threads)
    for one, (plain, pooled) in zip(sets, found, strict=True):
        assert np.array_equal(plain[0].image, [ALONE[body] for body in one.parts["test"].bodies])
        [_, (features, norms)] = EmbedOnce(MODELS, threads=1).embed(one, one.parts["test"])
        assert np.array_equal(pooled[0].image, features.image)
        assert norms is not None
        assert np.array_equal(pooled[1], norms)


def test_cached_files_do_not_know_what_came_next(tmp_path):
    sets = [a_set(f"s{i}", PICTURES[a : a + 11]) for i, a in enumerate((0, 5, 20))]
    in_order(MODELS, sets, cache_dir=str(tmp_path / "together"), threads=1)
    for one in sets:
        EmbedOnce(MODELS, str(tmp_path / "alone"), threads=1).embed(one, one.parts["test"])
    kept = [
        {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.npz")}
        for name in ("alone", "together")
    ]
    assert len(kept[0]) == len(sets) * len(MODELS)
    assert kept[0] == kept[1]


def test_a_broken_picture_is_told_when_its_own_set_is_embedded():
    first, second = a_set("good", PICTURES[:3]), a_set("bad", [PICTURES[5], b"no picture"])
    once = EmbedOnce(MODELS[:1], threads=1, order=[(one.parts["test"], None) for one in (first, second)])
    [(features, _)] = once.embed(first, first.parts["test"])
    assert np.array_equal(features.image, [ALONE[body] for body in PICTURES[:3]])
    with pytest.raises(DataError, match="/bad: the image of test sample k1"):
        once.embed(second, second.parts["test"])


def test_progress_never_says_more_than_what_was_asked_for():
    told: list[tuple[int, int]] = []
    sets = [a_set("a", PICTURES[:3]), a_set("b", PICTURES[3:8]), a_set("c", PICTURES[8:9])]
    in_order(MODELS[:1], sets, threads=1, todo=9, progress=lambda done, todo: told.append((done, todo)))
    assert told[-1] == (9, 9)
    assert told == sorted(told)
    assert {todo for _, todo in told} == {9}
