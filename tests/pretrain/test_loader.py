"""Threads, processes, views and augmentations change nothing about which batches there are."""

import io
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as tv

from curate.errors import DataError
from curate.pretrain.data.augment import augment, factors, jittered
from curate.pretrain.data.augment_options import Augment
from curate.pretrain.data.dataset import SubsetDataset
from curate.pretrain.data.labels import LabelColumn
from curate.pretrain.data.loader import Loader
from curate.pretrain.data.prefetch import Draft, made_ahead
from curate.pretrain.data.short_tokens import cut_tokens, end_mark
from curate.pretrain.data.tokenizer import ByteTokenizer, WordTokenizer
from curate.pretrain.data.transform import normalised
from curate.pretrain.data.view import View
from curate.pretrain.processes.world import World

TOKENIZER = WordTokenizer(12, 1 << 20)
FIELDS = ("samples", "images", "caption", "tokens", "label_rows", "label_ids")


def load(dataset, batch_size=32, samples_seen=150, seed=0, tokenizer=TOKENIZER, **options):
    return Loader(dataset, tokenizer, (32, 32), batch_size, samples_seen, seed, **options)


def kept(batch) -> dict:
    found = {name: getattr(batch, name) for name in FIELDS}
    return {name: value if value is None else value.copy() for name, value in found.items()} | {
        "texts": batch.texts,
        "at": (batch.step, batch.first, batch.total, batch.replaced),
    }


def same(a: dict, b: dict) -> bool:
    return all(np.array_equal(a[k], b[k]) if isinstance(a[k], np.ndarray) else a[k] == b[k] for k in a)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory, make_shard):
    """A data set of 40 samples of which two are corrupt."""
    write, good = make_shard
    rows = good(40, 3)
    for i in (3, 17):
        rows[i] = (rows[i][0][:70], "corrupt", "success")
    return SubsetDataset([write(tmp_path_factory.mktemp("spoilt"), "00000000", rows)])


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(spoilt, threads):
    plain = [kept(batch) for batch in load(spoilt).batches()]
    threaded = load(spoilt, threads=threads)
    found = [kept(batch) for batch in threaded.batches()]
    assert len(found) == 5
    assert sum(one["at"][3] for one in plain) > 4
    assert all(same(a, b) for a, b in zip(plain, found, strict=True))
    assert threaded.corrupt == ["00000000/00000000000003", "00000000/00000000000017"]
    assert threaded.wait_s > 0
    late = [kept(batch) for batch in load(spoilt, threads=threads).batches(3)]
    assert all(same(a, b) for a, b in zip(plain[3:], late, strict=True))


@pytest.mark.parametrize("size", [2, 3, 50])
def test_processes_share_the_same_batches(spoilt, size):
    """Parts of all processes, one after another, are the whole batch; with 50 of them some are empty."""
    loaders = [load(spoilt, world=World(rank, size), threads=rank % 2) for rank in range(size)]
    parts = [loader.batches() for loader in loaders]
    for whole in load(spoilt).batches():
        mine = [next(part) for part in parts]
        assert [m.first for m in mine] == np.cumsum([0, *(len(m.images) for m in mine[:-1])]).tolist()
        assert {m.total for m in mine} == {len(whole.images)}
        for name in ("images", "samples"):
            assert np.array_equal(np.concatenate([getattr(m, name) for m in mine]), getattr(whole, name))
        texts = [m.texts[i] for m in mine for i in m.caption]
        assert texts == [whole.texts[i] for i in whole.caption]
        assert all(m.tokens.shape == (len(m.texts), 12) for m in mine)
        assert sum(m.replaced for m in mine) == whole.replaced
    assert all(next(part, None) is None for part in parts)


def test_batches_in_hand_are_not_overwritten_by_those_being_made(spoilt):
    for batch in load(spoilt, samples_seen=400, threads=2).batches():
        before = batch.images.copy()
        time.sleep(0.01)
        assert np.array_equal(batch.images, before)


def test_errors_of_threads_come_out_where_they_belong(tmp_path, make_shard):
    write, good = make_shard
    rows = [(body[:60], caption, status) for body, caption, status in good(3, 0)]
    with pytest.raises(DataError, match="3 images cannot be decoded"):
        list(load(SubsetDataset([write(tmp_path, "00000000", rows)]), threads=2).batches())

    def draft(step: int, slot: int) -> Draft[int]:
        def piece() -> None:
            if step == 3:
                raise OSError("torn")

        return Draft([piece, piece], lambda: step)

    batches = made_ahead(draft, 0, 9, 2, 2, lambda _: None)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="torn"):
        next(batches)
    assert next(batches, None) is None


def test_closing_the_iterator_ends_its_threads(spoilt):
    before = threading.active_count()
    batches = load(spoilt, samples_seen=10_000, threads=3).batches()
    next(batches)
    assert threading.active_count() > before
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_no_more_than_two_batches_are_made_ahead():
    slots: list[int] = []

    def draft(step: int, slot: int) -> Draft[int]:
        slots.append(slot)
        return Draft([], lambda: step)

    for step in made_ahead(draft, 0, 8, 2, 2, lambda _: None):
        assert len(slots) <= step + 3
        assert slots[step] not in slots[step + 1 : step + 3]


def test_views_change_sizes_and_cut_captions(spoilt):
    views = [View((32, 32)), View((16, 24), (0.5, 0.6), 4), View((32, 32))]
    batches = [kept(b) for b in load(spoilt, samples_seen=96, views=views.__getitem__, threads=1).batches()]
    plain = [kept(b) for b in load(spoilt, samples_seen=96).batches()]
    assert same(batches[0], plain[0])
    assert same(batches[2], plain[2])
    assert batches[1]["images"].shape == (32, 16, 24, 3)
    assert batches[1]["tokens"].shape[1] == 4
    for short, text in zip(batches[1]["tokens"], batches[1]["texts"], strict=True):
        whole = TOKENIZER([text])[0]
        words = min(len(text.split()), 2)
        assert np.array_equal(short[: words + 1], whole[: words + 1])
        assert short[words + 1] == whole.max()


def test_steps_of_a_plan_may_differ_in_size(spoilt):
    class Plan:
        steps, samples_seen = 3, 50

        def samples_before(self, step):
            return (0, 10, 40, 50)[step]

        def view(self, step):
            return View((8 * (step + 1), 8))

    loader = load(spoilt, plan=Plan(), threads=1)
    batches = [kept(batch) for batch in loader.batches()]
    assert [batch["images"].shape[:2] for batch in batches] == [(10, 8), (30, 16), (10, 24)]
    assert (loader.steps, loader.samples_seen, loader.samples_seen_after(2)) == (3, 50, 40)
    whole = load(spoilt, batch_size=50, samples_seen=50).batch(0)
    assert np.array_equal(np.concatenate([batch["samples"] for batch in batches]), whole.samples)


def test_the_end_mark_of_any_tokenizer_is_found():
    import open_clip

    assert end_mark(ByteTokenizer(8)) == 257
    clip = open_clip.get_tokenizer("ViT-B-32")
    assert end_mark(lambda texts: clip(texts).numpy()) == 49407  # type: ignore[arg-type]

    class Siglip:  # pads with its end mark
        context_length = 5

        def __call__(self, texts):
            return np.array([[10 + len(t), ord(t[-1]), 1, 1, 1] for t in texts])

    assert end_mark(Siglip()) == 1  # type: ignore[arg-type]
    rows = np.array([[5, 6, 7, 1, 1], [5, 1, 1, 1, 1]])
    assert cut_tokens(rows, 3, 1).tolist() == [[5, 6, 1], [5, 1, 1]]
    assert cut_tokens(rows, 9, 1) is rows


def test_without_a_tokenizer_captions_are_not_read(spoilt):
    batch = load(spoilt, tokenizer=None).batch(0)
    assert batch.tokens.shape == (0, 0)
    assert (batch.texts, set(batch.caption.tolist())) == ([], {-1})
    assert batch.label_rows is None


def test_labels_come_as_rows_and_ids(tmp_path, make_shard):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write, good = make_shard
    rows = good(8, 0)
    rows[2] = (rows[2][0], None, "success")
    shard = write(tmp_path, "00000000", rows)
    tags = [["b", "a"], [], ["c"], None, ["a"], ["a", "a"], ["z"], ["c", "b", "a"]]
    pq.write_table(shard.read_table().append_column("tags", pa.array(tags)), shard.table)
    dataset = SubsetDataset([shard], labels=LabelColumn("tags", ("c", "b", "a")))
    batch = load(dataset, batch_size=8, samples_seen=8, world=World(1, 2)).batch(0)
    assert (batch.first, batch.total, len(batch.samples)) == (4, 8, 4)
    expected = [
        (row, i)
        for row, sample in enumerate(batch.samples.tolist())
        for i in sorted({"c": 0, "b": 1, "a": 2}[tag] for tag in set(tags[sample] or []) - {"z"})
    ]
    assert list(zip(batch.label_rows.tolist(), batch.label_ids.tolist(), strict=True)) == expected
    for sample, caption in zip(batch.samples, batch.caption, strict=True):
        assert (caption == -1) == (sample == 2)


def test_normalised_is_what_torchvision_gives():
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    expected = torch.stack([tv.normalize(tv.to_tensor(image), list(mean), list(std)) for image in images])
    found = normalised(images, mean, std)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)
    again = normalised(images[::-1].copy(), mean, std, found)
    assert again.data_ptr() == found.data_ptr()
    torch.testing.assert_close(again, expected.flip(0), rtol=1e-5, atol=2e-6)


# --- augmentations


def photo(seed=0, h=24, w=30):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_jitter_is_torchvisions(order):
    image, factor = photo(), (1.2, 0.7, 1.4, -0.07)
    changes = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    expected = Image.fromarray(image)
    for which in order:
        expected = changes[which](expected, factor[which])
    assert np.array_equal(jittered(image, factor, order), np.asarray(expected))


def test_factors_span_what_torchvisions_do():
    assert factors((0.4, 0.4, 2.0 / 2, 0.1), [0, 0.5, 1, 0]) == pytest.approx((0.6, 1.0, 2.0, -0.1))


def test_augmentations_depend_on_the_position_only():
    options = Augment(flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), grayscale=0.3, erase=0.3)
    whole = np.stack([photo(i) for i in range(24)])
    parts = [whole[:5].copy(), whole[5:17].copy(), whole[17:].copy()]
    augment(whole, options, 9, 100)
    for part, start in zip(parts, (100, 105, 117), strict=True):
        augment(part, options, 9, start)
    assert np.array_equal(np.concatenate(parts), whole)


def test_flips_grays_and_erasings_come_as_often_as_asked():
    image = photo()
    images = np.repeat(image[None], 600, 0)
    augment(images, Augment(flip=0.25), 3, 0)
    flipped = (images == image[:, ::-1]).all((1, 2, 3))
    assert (flipped | (images == image).all((1, 2, 3))).all()
    assert 0.18 < flipped.mean() < 0.32
    images[:] = image
    augment(images, Augment(grayscale=0.25), 3, 0)
    assert 0.18 < (images[..., 0] == images[..., 2]).all((1, 2)).mean() < 0.32
    images[:] = image
    augment(images, Augment(erase=0.25), 3, 0)
    changed = (images != image).any(3).mean((1, 2))
    assert 0.18 < (changed > 0).mean() < 0.32
    assert changed.max() < 0.4


def test_no_augmentation_is_the_default(spoilt):
    assert not Augment().active
    plain, flipped = load(spoilt).batch(0).images.copy(), load(spoilt, augment=Augment(flip=1.0)).batch(0).images
    assert np.array_equal(plain[:, :, ::-1], flipped)


# --- reduced decoding


def jpeg(image, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=92, **options)
    return file.getvalue()


def test_large_jpegs_are_decoded_small_and_look_the_same(tmp_path):
    from sklearn.datasets import load_sample_image

    from curate.pretrain.data.jpeg_crop import crop_into, open_source, reduction, whole

    assert [reduction((s, s + 9), (32, 32)) for s in (127, 128, 256, 511, 512)] == [1, 2, 4, 4, 8]
    body = jpeg(load_sample_image("flower.jpg"))
    source = open_source(body)
    kept_source = whole(source)
    full = np.asarray(Image.open(io.BytesIO(body)))
    for box, size in [((3, 5, 401, 611), (64, 64)), ((100, 37, 300, 402), (48, 48)), ((0, 0, 427, 640), (24, 31))]:
        small, exact = np.empty((*size, 3), np.uint8), np.empty((*size, 3), np.uint8)
        crop_into(source, box, small)
        part = Image.fromarray(full[box[0] : box[0] + box[2], box[1] : box[1] + box[3]])
        exact[:] = np.asarray(part.resize(size[::-1], Image.Resampling.BICUBIC))
        error = ((small.astype(float) - exact) ** 2).mean()
        assert 10 * np.log10(255**2 / error) > 40
        crop_into(kept_source, box, exact)
        assert np.array_equal(small, exact)  # kept in memory or not


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}])
def test_full_decoding_gives_pillows_pixels(options):
    from curate.pretrain.data.jpeg_crop import crop_into, open_source

    body = jpeg(photo(3, 90, 70), **options)
    out = np.empty((50, 40, 3), np.uint8)
    crop_into(open_source(body), (7, 9, 50, 40), out)
    expected = np.asarray(Image.open(io.BytesIO(body)))[7:57, 9:49]
    assert np.abs(out.astype(int) - expected).max() <= 1


def test_turned_and_gray_pictures_come_upright_in_colour():
    from curate.pretrain.data.jpeg_crop import crop_into, open_source

    exif = Image.Exif()
    exif[0x0112] = 6
    image = photo(4, 64, 80)
    source = open_source(jpeg(image, exif=exif.tobytes()))
    assert (source.height, source.width) == (80, 64)
    out = np.empty((80, 64, 3), np.uint8)
    crop_into(source, (0, 0, 80, 64), out)
    assert np.abs(out.astype(int) - np.rot90(image, -1)).mean() < 6
    crop_into(open_source(jpeg(image[..., 0])), (0, 0, 64, 80), np.empty((64, 80, 3), np.uint8))
