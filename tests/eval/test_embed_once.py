"""Pictures are read, decoded and embedded once, and nothing around them changes a bit of a feature."""

import io
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import curate.eval.embedding.embed_once as embed_once
from curate.errors import DataError
from curate.eval.embedding.embed_once import EmbedOnce, wanted_rows
from curate.eval.embedding.features import TextFeatures, image_features
from curate.eval.embedding.picture_pass import picture_features
from curate.eval.evaluate import evaluate_encoders
from curate.eval.opened import OpenSet, open_sets
from curate.eval.suites import parse_suites
from curate.pretrain.encoders import encoder as encoder_module
from curate.pretrain.encoders.classifier_encoder import LinearHead, VisualEncoder
from curate.pretrain.encoders.encoder import Encoder
from curate.pretrain.models.architecture import build, resolve_model
from curate.shards.evalsets.base import EvalSet, EvalSplit
from curate.shards.images.image import decode_rgb

CPU = torch.device("cpu")


class Split(EvalSplit):
    def __init__(self, name: str, bodies: list[bytes], classes: int = 3) -> None:
        self.name, self.where = name, name
        self.keys = [f"k{i}" for i in range(len(bodies))]
        self.classes = np.arange(len(bodies)) % classes
        self.bodies, self.reads = bodies, Counter()

    def image(self, index: int) -> bytes:
        self.reads[index] += 1
        return self.bodies[index]


@dataclass(frozen=True)
class Set(EvalSet):
    parts: dict[str, Split] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return self.name * 4

    def split_names(self) -> list[str]:
        return sorted(self.parts)

    def split(self, name: str) -> EvalSplit:
        return self.parts[name]


def a_set(name: str = "zoo", **parts: list[bytes]) -> Set:
    splits = {key: Split(key, bodies) for key, bodies in parts.items()}
    return Set(name, f"/{name}", ("ant", "bee", "cow"), ("a {c}",), parts=splits)


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    height, width = rng.integers(9, 60, 2)
    file = io.BytesIO()
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    image.save(file, ("PNG", "JPEG")[number % 2])
    return file.getvalue()


PICTURES = [picture(i) for i in range(150)]


@pytest.fixture(scope="module")
def models() -> list[Encoder]:
    """Two that prepare alike, one of another size, one with a head."""
    spec = resolve_model("ViT-mini-8-32")
    from curate.pretrain.data.tokenizer import tokenizer_for

    tokenizer = tokenizer_for(spec.tokenizer, spec.config["text_cfg"])
    found = [Encoder(build(spec, seed=seed), spec, tokenizer, CPU) for seed in (1, 2)]
    other = resolve_model("RN-mini-32")
    found.append(Encoder(build(other, seed=3), other, tokenizer_for(other.tokenizer, other.config["text_cfg"]), CPU))
    classifier = VisualEncoder(build(spec, seed=4).visual, spec, None, CPU)
    dim = classifier.dim
    classifier.head = LinearHead(("ant", "bee"), np.eye(2, dim, dtype=np.float32), np.zeros(2, np.float32))
    return [*found, classifier]


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(embed_once, "CHUNK", 40)


def embedded(models, one: Set, split: str = "test", **kwargs):
    return EmbedOnce(models, **kwargs).embed(one, one.parts[split])


def same(a, b) -> bool:
    return all(
        np.array_equal(x.image, y.image, equal_nan=True)
        and x.image.dtype == np.float32
        and (n is m is None or np.array_equal(n, m, equal_nan=True))
        for (x, n), (y, m) in zip(a, b, strict=True)
    )


@pytest.fixture(scope="module")
def alone(models) -> list:
    """Each model by itself, each picture by itself through the encoder."""
    torch.set_num_threads(1)
    expected = []
    for model in models:
        classifies = getattr(model, "head", None) is not None
        encode = model.encode_pooled if classifies else model.encode_images
        rows = np.concatenate([encode([body]) for body in PICTURES])
        norms = np.linalg.norm(rows, axis=1) if classifies else None
        expected.append((rows if norms is None else rows / norms[:, None], norms))
    return expected


@pytest.mark.parametrize("threads", [1, 3])
def test_features_are_those_of_each_picture_and_model_alone(models, alone, small_chunks, threads):
    found = embedded(models, a_set(test=PICTURES), threads=threads)
    for (features, norms), (rows, lengths) in zip(found, alone, strict=True):
        if lengths is None:
            assert norms is None
            assert np.array_equal(features.image, rows)
        else:
            np.testing.assert_allclose(norms, lengths, rtol=1e-6)
            np.testing.assert_allclose(features.image, rows, atol=1e-6)
        assert features.labels.tolist() == [i % 3 for i in range(150)]
    for number, model in enumerate(models):
        assert same([found[number]], embedded([model], a_set(test=PICTURES), threads=1))


def test_a_picture_is_read_decoded_and_prepared_once_for_all_models(models, small_chunks, monkeypatch):
    decoded, prepared = Counter(), Counter()
    real = encoder_module.decode_rgb
    monkeypatch.setattr(
        "curate.eval.embedding.picture_pass.decode_rgb", lambda body: decoded.update([body]) or real(body)
    )
    for model in models:
        plain = model.prepare
        monkeypatch.setattr(model, "prepare", lambda rgb, m=model, p=plain: prepared.update([m]) or p(rgb))
    one = a_set(test=PICTURES)
    embedded(models, one, threads=2)
    assert set(one.parts["test"].reads.values()) == {1}
    assert len(decoded) == sum(decoded.values()) == 150
    assert len({model.image_key for model in models}) == len(prepared)
    assert set(prepared.values()) == {150}


def test_shared_pictures_are_embedded_once(models, alone, small_chunks, monkeypatch):
    one = a_set(test=PICTURES[:90] + PICTURES[:10], train=PICTURES[60:120])
    other = a_set("zoo2", test=PICTURES[100:] + PICTURES[:30])
    ran = Counter()
    for model in models:
        plain = model.encode_prepared
        monkeypatch.setattr(
            model, "encode_prepared", lambda x, m=model, p=plain: ran.update({m.digest: len(x)}) or p(x)
        )
    once = EmbedOnce(models, threads=2)
    found = [once.embed(s, s.parts[split]) for s, split in ((one, "test"), (one, "train"), (other, "test"))]
    assert set(ran.values()) == {150}
    fresh = [embedded(models, s, split, threads=1) for s, split in ((one, "test"), (one, "train"), (other, "test"))]
    assert all(map(same, found, fresh))


def test_what_is_forgotten_is_embedded_again(models, small_chunks, monkeypatch):
    monkeypatch.setattr(embed_once, "REMEMBERED", 1)
    one = a_set(a=PICTURES[:50], b=PICTURES[:60], c=PICTURES[:50])
    once = EmbedOnce(models[:1], threads=1)
    found = [once.embed(one, one.parts[split])[0][0].image for split in "abc"]
    assert np.array_equal(found[0], found[1][:50])
    assert np.array_equal(found[0], found[2])


def test_cache_changes_nothing_and_spares_the_pictures(models, small_chunks, tmp_path):
    cache = str(tmp_path / "cache")
    plain = embedded(models, a_set(test=PICTURES))
    first, second, third = (a_set(test=PICTURES) for _ in range(3))
    assert same(embedded(models[:2], first, cache_dir=cache), plain[:2])
    assert same(embedded(models, second, cache_dir=cache), plain)  # two from the cache, two in its company
    assert same(embedded(models, third, cache_dir=cache), plain)
    assert set(second.parts["test"].reads.values()) == {1}
    assert not third.parts["test"].reads
    once = EmbedOnce(models, cache)  # a set that comes later, and shares pictures with one that is read from the cache
    later = a_set("later", test=PICTURES[70:])
    once.embed(third, third.parts["test"])
    assert same(once.embed(later, later.parts["test"]), [(_cut(f, 70), n if n is None else n[70:]) for f, n in plain])


def _cut(features, start: int):
    return features._replace(image=features.image[start:], labels=features.labels[start:])


def test_a_killed_evaluation_loses_a_chunk_at_most(models, small_chunks, tmp_path):
    class Killed(Exception):
        pass

    def kill(done: int, _: int) -> None:
        if done > 100:
            raise Killed

    cache = str(tmp_path)
    with pytest.raises(Killed):
        embedded(models, a_set(test=PICTURES), cache_dir=cache, progress=kill, threads=2)
    again = a_set(test=PICTURES)
    assert same(embedded(models, again, cache_dir=cache), embedded(models, a_set(test=PICTURES)))
    assert min(again.parts["test"].reads) == 80


def test_some_rows_only(models, small_chunks, tmp_path):
    plain, rows = embedded(models, a_set(test=PICTURES)), np.arange(3, 150, 3)
    for cache in (None, str(tmp_path)):
        one = a_set(test=PICTURES)
        for _ in range(2):
            found = EmbedOnce(models, cache).embed(one, one.parts["test"], rows)
            for (features, norms), (whole, lengths) in zip(found, plain, strict=True):
                expected = np.full_like(whole.image, np.nan)
                expected[rows] = whole.image[rows]
                assert np.array_equal(features.image, expected, equal_nan=True)
                assert lengths is None or np.array_equal(norms[rows], lengths[rows])
        assert set(one.parts["test"].reads) == set(rows.tolist())
        assert set(one.parts["test"].reads.values()) == {1 if cache else 2}


def test_some_rows_of_a_set_that_was_kept_as_a_whole_cost_nothing(models, small_chunks, tmp_path):
    plain = embedded(models, a_set(test=PICTURES), cache_dir=str(tmp_path))
    one, rows = a_set(test=PICTURES), np.array([0, 39, 40, 149])
    found = EmbedOnce(models, str(tmp_path)).embed(one, one.parts["test"], rows)
    assert not one.parts["test"].reads
    assert all(np.array_equal(f.image[rows], p.image[rows]) for (f, _), (p, _) in zip(found, plain, strict=True))


def test_rows_are_the_union_over_suites_of_the_set():
    suites = parse_suites([{"type": "fast", "samples": 10}, {"type": "fast", "samples": 30, "name": "more"}, "knn"])
    one = a_set(test=PICTURES, train=PICTURES)
    opened = OpenSet(one, list(suites[:2]), {"test": one.parts["test"]})
    each = [suite.rows(one, one.parts["test"]) for suite in suites[:2]]
    assert np.array_equal(wanted_rows(opened, "test"), np.union1d(*each))
    both = OpenSet(one, list(suites), dict(one.parts))
    assert wanted_rows(both, "test") is None
    assert wanted_rows(both, "train") is None


@pytest.mark.parametrize("threads", [1, 3])
def test_broken_pictures_and_features_that_are_no_numbers_are_named(models, threads, monkeypatch):
    bodies = [*PICTURES[:70], PICTURES[70][:-40], *PICTURES[71:]]
    with pytest.raises(DataError, match=r"/zoo: the image of test sample k70 is broken"):
        embedded(models, a_set(test=bodies), threads=threads)
    with pytest.raises(DataError, match="'test' holds no sample"):
        embedded(models, a_set(test=[]), threads=threads)
    plain = models[0].encode_prepared
    monkeypatch.setattr(
        models[0], "encode_prepared", lambda x: plain(x) * np.where(np.arange(len(x)) == 5, np.nan, 1)[:, None]
    )
    with pytest.raises(DataError, match="feature of test sample k5 is not a number"):
        embedded(models, a_set(test=PICTURES[:20]), threads=threads)


def test_progress_counts_pictures(models, small_chunks):
    seen: list[tuple[int, int]] = []
    one = a_set(a=PICTURES[:100], b=PICTURES[50:])
    once = EmbedOnce(models, progress=lambda d, t: seen.append((d, t)), todo=200, threads=2)
    for split in "ab":
        once.embed(one, one.parts[split])
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (200, 200)
    assert {t for _, t in seen} == {200}


def test_one_model_is_the_same_through_image_features(models):
    found = image_features(models[0], a_set(test=PICTURES), Split("test", PICTURES))
    assert same([(found, None)], embedded(models[:1], a_set(test=PICTURES)))


class OnDevice:
    """An encoder that says that it is on a GPU: the threads prepare, and the caller's runs it."""

    device, image_key, image_size, dim = SimpleNamespace(type="cuda"), "mean", (1, 1), 3
    submit = towers = None

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.calls: list[int] = []
        self.threads: set[int] = set()

    def prepare(self, rgb):
        return rgb[:1, :1]

    def encode_prepared(self, images):
        self.calls.append(len(images))
        self.threads.add(threading.get_ident())
        return images[:, 0, 0].astype(np.float32)


@pytest.mark.parametrize("batch", [32, 64, 128])
def test_on_a_gpu_the_callers_thread_runs_whole_batches_in_order(batch):
    model, counts = OnDevice(batch), []
    (found,) = picture_features([model], iter(PICTURES), 3, counts.append)  # type: ignore[list-item]
    assert np.array_equal(found, [decode_rgb(body)[0, 0] for body in PICTURES])
    assert model.calls == ([128, 22] if batch == 128 else [64, 64, 22])
    assert model.threads == {threading.get_ident()}
    assert sum(counts) == 150


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_threads_change_nothing():
    spec = resolve_model("RN-mini-32")
    model = Encoder(build(spec, seed=3), spec, None, torch.device("cuda"))
    found = [embedded([model], a_set(test=PICTURES), threads=threads) for threads in (1, 4)]
    assert same(*found)


TEXTS = [f"{'word ' * (i % 9)}number {i}" for i in range(150)]


@pytest.mark.parametrize("threads", [1, 3])
def test_texts_are_those_of_each_text_alone(models, threads, tmp_path):
    torch.set_num_threads(1)
    expected = np.concatenate([models[0].encode_texts([text]) for text in TEXTS])
    assert np.array_equal(TextFeatures(models[0], threads=threads)(TEXTS), expected)
    kept = TextFeatures(models[0], str(tmp_path), threads)
    kept(TEXTS[:60])
    assert np.array_equal(kept(TEXTS), expected)
    again = TextFeatures(models[0], str(tmp_path), threads)
    seen = []
    again.add([*TEXTS[:20], "something new", *TEXTS[100:]], lambda d, t: seen.append((d, t)))
    assert np.array_equal(again(TEXTS[100:]), expected[100:])
    assert seen[-1] == (71, 71)


def test_several_models_leave_the_files_that_each_leaves_alone(models, tmp_path):
    pairs = dict(zip("ab", models[:2], strict=True))
    suites = parse_suites(["zero_shot", "knn", {"type": "fast", "samples": 20}])
    sets = open_sets([a_set(test=PICTURES[:80], train=PICTURES[60:])], suites)
    evaluate_encoders(pairs, sets, {name: str(tmp_path / f"both-{name}") for name in pairs}, threads=2)
    for name, model in pairs.items():
        evaluate_encoders({name: model}, sets, {name: str(tmp_path / name)}, str(tmp_path / "cache"), threads=1)
        both, one = (
            {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
            for folder in (tmp_path / f"both-{name}", tmp_path / name)
        )
        assert both == one
