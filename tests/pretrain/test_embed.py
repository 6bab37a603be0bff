"""Embeddings of shards: aligned, counted, and bit for bit functions of the sample alone."""

import json
from functools import cache

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.errors import ConfigError
from curate.pretrain.encoders.embed import Embedding, embed_shards
from curate.pretrain.encoders.encoder import Encoder
from curate.pretrain.encoders.load_encoder import load_encoder
from curate.pretrain.models.architecture import build, resolve_model
from curate.shards.image_pass import CORRUPT, MISSING, NOT_FETCHED, OK
from curate.shards.images.image import decode_rgb

VISION = {"image_size": 33, "patch_size": 11, "width": 40, "head_width": 20, "layers": 2}
TEXT = {"context_length": 45, "vocab_size": 258, "width": 36, "heads": 3, "layers": 2}
CONFIGS = {  # odd sizes on purpose: vector units have tails
    "causal": {"embed_dim": 23, "vision_cfg": VISION, "text_cfg": TEXT},
    "bidirectional": {"embed_dim": 23, "vision_cfg": VISION, "text_cfg": {**TEXT, "no_causal_mask": True}},
}
NAMES = ("RN-mini-32", "ViT-mini-8-32", "causal", "bidirectional", "timm:test_vit", "timm:test_resnet")


def away_from_initialisation(module: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.empty_like(p).normal_(0, 0.05, generator=torch.Generator().manual_seed(p.numel())))
    return module


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Encoder of a name, with weights that no initialisation has."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def load(name: str) -> Encoder:
        if name.startswith("timm:"):
            model, module = name, timm.create_model(name.removeprefix("timm:"))
        else:
            model = name
            if name in CONFIGS:
                model = str(folder / f"{name}.json")
                (folder / f"{name}.json").write_text(json.dumps({"tokenizer": "bytes", **CONFIGS[name]}))
            module = build(resolve_model(model), 0)
        weights = folder / f"{name.replace(':', '-')}.pt"
        torch.save(away_from_initialisation(module).state_dict(), weights)
        return load_encoder(model, str(weights), "cpu", "auto")

    return load


@pytest.fixture
def uneven(tmp_path, make_shard):
    """Twelve rows, of which some are damaged in every way there is."""
    write_shard, good_rows = make_shard
    rows = good_rows(12, 5)
    rows[2] = (None, "never fetched", "failed_to_download")
    rows[4] = (rows[4][0][:70], "this file is torn", "success")
    rows[7] = (rows[7][0], None, "success")
    rows[9] = (None, "not in the tar", "success")
    return write_shard(tmp_path, "00000000", rows)


def test_a_shard_is_embedded_row_by_row(uneven, encoder):
    seen = []
    found = embed_shards({"clip": encoder}, [uneven], progress=lambda done, total: seen.append((done, total)))
    (shard,) = found.shards
    clip = shard.embedded["clip"]
    assert clip.image.dtype == clip.text.dtype == np.float16
    assert clip.image.shape == clip.text.shape == (12, encoder.dim)
    none = np.isnan(clip.image)
    assert np.flatnonzero(none.any(1)).tolist() == np.flatnonzero(none.all(1)).tolist() == [2, 4, 9]
    assert np.flatnonzero(np.isnan(clip.text).all(1)).tolist() == [2, 7]
    codes = {2: NOT_FETCHED, 4: CORRUPT, 9: MISSING}
    assert shard.status.tolist() == [codes.get(row, OK) for row in range(12)]
    assert shard.text_status.tolist() == [{2: NOT_FETCHED, 7: MISSING}.get(row, OK) for row in range(12)]
    assert clip.counts == {"rows": 12, "images": 9, "texts": 10, "corrupt": 1, "missing": 1, "not_finite": 0}
    assert seen[-1] == (12, 12)
    assert found.seconds.keys() == {"clip", "pictures", "captions"}
    assert min(found.seconds.values()) >= 0
    table = pq.read_table(uneven.table)
    body = uneven.open().read(table["key"][11].as_py(), "png")
    assert np.array_equal(clip.image[11], encoder.encode_images([body])[0].astype(np.float16))


def test_shards_without_anything(tmp_path, make_shard, encoder):
    write_shard, _ = make_shard
    gone = write_shard(tmp_path, "00000000", [(None, "gone", "failed_to_download")] * 3)
    bare = write_shard(tmp_path, "00000001", [])
    first, second = embed_shards({"clip": encoder}, [gone, bare]).shards
    assert np.isnan(first.embedded["clip"].image).all()
    assert np.isnan(first.embedded["clip"].text).all()
    assert first.embedded["clip"].counts["images"] == first.embedded["clip"].counts["texts"] == 0
    assert second.embedded["clip"].image.shape == (0, encoder.dim)
    assert embed_shards({"clip": encoder}, []).shards == []
    assert embed_shards({}, [gone]).shards[0].status.tolist() == [NOT_FETCHED] * 3


def test_an_image_model_embeds_no_captions(uneven, load):
    (shard,) = embed_shards({"timm": load("timm:test_vit")}, [uneven]).shards
    assert shard.embedded["timm"].text is None
    assert shard.embedded["timm"].counts["texts"] == 0
    assert shard.embedded["timm"].counts["images"] == 9
    norms = np.linalg.norm(shard.embedded["timm"].image[shard.status == OK].astype(float), axis=1)
    assert np.allclose(norms, 1, atol=2e-3)


@pytest.fixture(scope="module")
def samples(make_shard):
    """70 distinct samples: more than one batch, captions of every length."""
    _, good_rows = make_shard
    words = np.random.default_rng(3).integers(0, 14, 70)
    return [(body, f"{text} {'so ' * words[i]}{i}", status) for i, (body, text, status) in enumerate(good_rows(70, 9))]


@pytest.fixture(scope="module")
def embedded(load, samples, make_shard, tmp_path_factory):
    """Every sample's embeddings by every model, from one shard in plain order."""
    shard = make_shard[0](tmp_path_factory.mktemp("plain"), "00000000", samples)
    wanted = {name: Embedding(load(name), "float32") for name in NAMES}
    return embed_shards(wanted, [shard]).shards[0].embedded


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_embedding_is_a_function_of_the_sample(load, samples, embedded, make_shard, tmp_path_factory, data):
    """Any order, any choice, any cut into shards and bundles, any company, any number of threads: equal bytes."""
    order = data.draw(st.permutations(range(len(samples))))[: data.draw(st.integers(1, len(samples)))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=3)))
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    threads, torch_threads = data.draw(st.sampled_from([0, 1, 3])), data.draw(st.sampled_from([1, 2]))
    folder = tmp_path_factory.mktemp("cut")
    pieces = [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    shards = [make_shard[0](folder, f"{i:08d}", [samples[j] for j in piece]) for i, piece in enumerate(pieces)]
    bundle = data.draw(st.integers(0, len(shards)))
    wanted = {name: Embedding(load(name), "float32") for name in names}
    before = torch.get_num_threads()
    torch.set_num_threads(torch_threads)
    try:
        found = [
            s for some in (shards[:bundle], shards[bundle:]) for s in embed_shards(wanted, some, (), threads).shards
        ]
        assert torch.get_num_threads() == torch_threads
    finally:
        torch.set_num_threads(before)
    for piece, shard in zip(pieces, found, strict=True):
        for name in names:
            assert np.array_equal(shard.embedded[name].image, embedded[name].image[piece])
            if "text" in load(name).modalities:
                assert np.array_equal(shard.embedded[name].text, embedded[name].text[piece])


def test_half_precision_is_the_rounded_single(uneven, encoder):
    wanted = {"half": encoder, "single": Embedding(encoder, "float32")}
    shard = embed_shards(wanted, [uneven]).shards[0].embedded
    assert shard["single"].image.dtype == shard["single"].text.dtype == np.float32
    assert np.array_equal(shard["single"].image.astype(np.float16), shard["half"].image, equal_nan=True)
    assert np.array_equal(shard["single"].text.astype(np.float16), shard["half"].text, equal_nan=True)


class Sizes:
    """A foreign reader: the sizes of pictures."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, int], tuple[int, int]] = {}
        self.finished = False

    def begin(self, index, shard, rows):
        assert rows == shard.rows()

    def prepare(self, picture):
        return picture.rgb.shape[:2]

    def take(self, index, row, prepared):
        self.found[index, row] = prepared

    def finish(self):
        self.finished = True


def test_pictures_are_decoded_once_for_all(uneven, squares, load, monkeypatch):
    decoded = []
    monkeypatch.setattr("curate.shards.image_pass.decode_rgb", lambda body: decoded.append(body) or decode_rgb(body))
    prepared = []
    first = load("RN-mini-32")
    plain = type(first).prepare
    monkeypatch.setattr(type(first), "prepare", lambda self, image: prepared.append(self) or plain(self, image))
    sizes = Sizes()
    encoders = {"a": first, "b": load("ViT-mini-8-32"), "c": load("causal")}
    found = embed_shards(encoders, [uneven, squares[0]], [sizes]).shards
    pictures = sum(int((shard.status == OK).sum()) for shard in found)
    assert len(decoded) == pictures + 1  # and the torn one
    assert len(prepared) == 2 * pictures  # a and b take the same input
    assert sizes.finished
    assert len(sizes.found) == pictures
    assert set(sizes.found.values()) == {(40, 48)}


def test_embeddings_that_are_no_numbers_are_counted(uneven, load):
    class Broken(Encoder):
        def submit(self, images):
            found = super().submit(images)().copy()
            found[1] = np.inf
            found[3, 0] = np.nan
            return lambda: found

        def encode_texts(self, texts, progress=None):
            found = super().encode_texts(texts, progress)
            found[0, 2] = -np.inf
            return found

    whole = load("causal")
    broken = Broken(whole.model, whole.spec, whole.tokenizer, torch.device("cpu"))
    (shard,) = embed_shards({"broken": broken, "whole": whole}, [uneven]).shards
    found = shard.embedded["broken"]
    assert np.flatnonzero(np.isnan(found.image).all(1)).tolist() == [
        1,
        2,
        4,
        5,
        9,
    ]  # 2nd, 4th seen
    assert np.flatnonzero(np.isnan(found.text).all(1)).tolist() == [0, 2, 7]
    assert not np.isinf(found.image).any()
    assert found.counts == {"rows": 12, "images": 7, "texts": 9, "corrupt": 1, "missing": 1, "not_finite": 3}
    assert shard.embedded["whole"].counts["not_finite"] == 0


def paint(rgb: np.ndarray) -> np.ndarray | None:
    """Blackens the upper half of pictures that are dark enough in the corner."""
    if rgb[0, 0, 0] % 2:
        return None
    found = rgb.copy()
    found[:20] = 0
    return found


def test_masked_pictures_and_copies_of_the_others(uneven, squares, load):
    encoder = load("causal")
    shards = [uneven, squares[0]]
    together = embed_shards(
        {"masked": Embedding(encoder, "float32", paint), "plain": Embedding(encoder, "float32")}, shards
    )
    alone = embed_shards({"masked": Embedding(encoder, "float32", paint)}, shards, threads=0)
    half = embed_shards(
        {"masked": Embedding(encoder, "float16", paint), "plain": Embedding(encoder, "float32")}, shards
    )
    changed = 0
    for shard, a, b, c in zip(shards, together.shards, alone.shards, half.shards, strict=True):
        masked, plain = a.embedded["masked"], a.embedded["plain"]
        assert masked.text is None
        assert np.array_equal(masked.image, b.embedded["masked"].image, equal_nan=True)
        assert np.array_equal(masked.image.astype(np.float16), c.embedded["masked"].image, equal_nan=True)
        tar, keys = shard.open(), pq.read_table(shard.table)["key"].to_pylist()
        for row in np.flatnonzero(a.status == OK):
            rgb = decode_rgb(bytes(tar.read(keys[row], "png")))
            painted = paint(rgb)
            expected = plain.image[row] if painted is None else encoder.encode_images([painted])[0]
            assert np.array_equal(masked.image[row], expected)
            changed += painted is not None
        assert masked.counts["images"] == plain.counts["images"]
    counted = [sum(s.embedded["masked"].counts["masked"] for s in found.shards) for found in (together, alone, half)]
    assert counted == [changed] * 3
    assert 0 < changed < 69


def test_batches_in_flight_are_left_alone(uneven, squares, load):
    """As on a GPU, where a batch is read after the next ones were begun: nothing is written to it before."""

    class Late(Encoder):
        def new_batch(self):
            return torch.zeros((self.batch, *self.image_size, 3), dtype=torch.uint8)

        def submit(self, images):
            return lambda: plain.submit(images)()

    plain = load("causal")
    late = Late(plain.model, plain.spec, plain.tokenizer, torch.device("cpu"))
    late.device, late.batch, late.text_batch = torch.device("cuda"), 8, 8
    plain_batch, plain.batch = plain.batch, 8
    try:
        shards = [squares[0], uneven, squares[1]]
        found = embed_shards({"late": late}, shards).shards
        expected = embed_shards({"late": plain}, shards).shards
    finally:
        plain.batch = plain_batch
    for a, b in zip(found, expected, strict=True):
        assert np.array_equal(a.embedded["late"].image, b.embedded["late"].image, equal_nan=True)
        assert np.abs(np.nan_to_num(a.embedded["late"].text - b.embedded["late"].text)).max() <= 1e-3
        assert a.embedded["late"].counts == b.embedded["late"].counts


def test_encoders_say_what_they_cannot(load):
    with pytest.raises(ConfigError, match="image model"):
        load("timm:test_vit").encode_texts(["a"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 2e-2), ("fp16", 2e-2)])
def test_a_gpu_agrees(load, squares, embedded, samples, tmp_path, make_shard, name, precision, tolerance):
    on_cpu = load(name)
    if on_cpu.modalities == ("image",):
        from curate.pretrain.encoders.timm_encoder import TimmEncoder

        config = on_cpu.spec.config["timm"]
        on_gpu: Encoder = TimmEncoder(on_cpu.model, name, config, torch.device("cuda"), precision)
    else:
        on_gpu = Encoder(on_cpu.model, on_cpu.spec, on_cpu.tokenizer, torch.device("cuda"), precision)
    shard = make_shard[0](tmp_path, "00000000", samples)
    try:
        found = embed_shards({"gpu": Embedding(on_gpu, "float32")}, [shard], threads=4).shards[0].embedded["gpu"]
        again = embed_shards({"gpu": Embedding(on_gpu, "float32")}, [shard], threads=2).shards[0].embedded["gpu"]
    finally:
        on_cpu.model.cpu()
    assert np.array_equal(found.image, again.image)
    assert np.abs(found.image - embedded[name].image).max() < tolerance
    if found.text is not None:
        assert np.array_equal(found.text, again.text)
        assert np.abs(found.text - embedded[name].text).max() < tolerance
