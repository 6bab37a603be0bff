import numpy as np
import pytest

from curate.errors import DataError
from curate.pretrain.data.dataset import SubsetDataset
from curate.pretrain.data.loader import Loader
from curate.pretrain.data.tokenizer import WordTokenizer
from curate.shards.images.image import decode_rgb
from curate.shards.shard import Shard

TOKENIZER = WordTokenizer(12, 1 << 20)  # so many ids that no two words here share one


def load(dataset, batch_size=8, samples_seen=100, seed=0, cache_mb=64, **options):
    return Loader(dataset, TOKENIZER, (32, 32), batch_size, samples_seen, seed, cache_mb=cache_mb, **options)


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("images", "tokens", "caption", "replaced"))


def test_samples_come_in_pool_order_with_repeats(squares):
    dataset = SubsetDataset(squares, [np.array([2, 2, 5]), np.array([0, 35, 35, 35])])
    assert len(dataset) == 7
    assert dataset.distinct == 4
    assert [dataset.source(i) for i in range(7)] == [0, 0, 1, 2, 3, 3, 3]
    names = [dataset.name(i) for i in range(7)]
    assert names[0] == "00000000/00000000000002"
    assert names[3:5] == ["00000001/00000001000000", "00000001/00000001000035"]
    table = squares[1].read_table(["caption"])["caption"].to_pylist()
    assert [dataset.caption(i) for i in (3, 4, 6)] == [table[0], table[35], table[35]]
    assert dataset.image(4) == squares[1].open().read("00000001000035", "png")


def test_default_is_every_fetched_sample(squares):
    assert len(SubsetDataset(squares)) == 96


def test_identity_follows_the_selection(squares):
    rows = np.arange(10)
    a = SubsetDataset(squares, [rows, rows]).identity()
    assert a == SubsetDataset(squares, [rows, rows]).identity()
    assert a != SubsetDataset(squares, [rows, rows[:-1]]).identity()
    assert a != SubsetDataset(squares, [np.append(rows, 9), rows]).identity()


def test_samples_without_caption_are_left_out_and_counted(tmp_path, make_shard):
    write_shard, good_rows = make_shard
    rows = good_rows(4, 0)
    rows[1] = (rows[1][0], None, "success")
    shard = write_shard(tmp_path, "00000000", rows)
    dataset = SubsetDataset([shard], [np.array([0, 1, 1, 3])])
    assert (len(dataset), dataset.distinct, dataset.without_caption) == (2, 2, 1)
    assert [dataset.name(i)[-1] for i in range(2)] == ["0", "3"]


def test_nothing_to_train_on_is_an_error(tmp_path, squares, make_shard):
    write_shard, good_rows = make_shard
    with pytest.raises(DataError, match="subset is empty"):
        SubsetDataset(squares, [np.empty(0, int), np.empty(0, int)])
    with pytest.raises(DataError, match="subset is empty"):
        SubsetDataset([])
    silent = write_shard(tmp_path, "00000000", [(body, None, status) for body, _, status in good_rows(3, 0)])
    with pytest.raises(DataError, match="none of the 3 selected samples has a caption"):
        SubsetDataset([silent])


def test_a_table_without_captions_is_an_error(tmp_path, squares):
    import pyarrow.parquet as pq

    table = squares[0].read_table(["key", "status"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="no column 'caption'"):
        SubsetDataset([Shard("0", squares[0].tar, str(tmp_path / "t.parquet"))])


def test_a_torn_tar_is_an_error(tmp_path, squares):
    torn = tmp_path / "torn.tar"
    with open(squares[0].tar, "rb") as file:
        torn.write_bytes(file.read()[:100_000])
    with pytest.raises(DataError, match=r"torn\.tar \(truncated at byte .*lacks \d+ of 60 selected samples"):
        SubsetDataset([Shard("0", str(torn), squares[0].table)])


def test_any_batch_can_be_made_alone(squares):
    dataset = SubsetDataset(squares)
    loader = load(dataset, samples_seen=203)
    assert loader.steps == 26
    sizes = []
    for batch in loader.batches():
        sizes.append(len(batch.images))
        assert same(load(dataset, samples_seen=203).batch(batch.step), batch)
    assert sizes == [8] * 25 + [3]
    late = load(dataset, samples_seen=203).batches(24)
    assert [batch.step for batch in late] == [24, 25]


def test_the_cache_changes_nothing(squares):
    dataset = SubsetDataset(squares)
    for a, b in zip(load(dataset, cache_mb=64).batches(), load(dataset, cache_mb=0).batches(), strict=True):
        assert same(a, b)


def test_seeds_give_other_orders_and_crops(squares):
    dataset = SubsetDataset(squares, [np.array([0]), np.empty(0, int)])
    a, b = load(dataset).batch(0).images.copy(), load(dataset, seed=1).batch(0).images
    assert not np.array_equal(a, b)
    assert not np.array_equal(a[0], a[1])  # the same sample, cropped differently


def test_images_and_captions_belong_together(squares):
    dataset = SubsetDataset(squares)
    colours = {"red": 0, "green": 1, "blue": 2}
    ids = {c: TOKENIZER([c])[0, 1] for c in (*colours, "yellow")}
    for batch in load(dataset, batch_size=32).batches():
        for image, tokens in zip(batch.images, batch.tokens[batch.caption], strict=True):
            spread = image.reshape(-1, 3).astype(int)
            most = spread[np.ptp(spread, axis=1).argmax()]  # the most colourful pixel
            (colour,) = [c for c, i in ids.items() if i in tokens]
            if colour == "yellow":
                assert most[2] == most.min()
            else:
                assert most.argmax() == colours[colour]


def test_equal_captions_are_tokenised_once(squares):
    batch = load(SubsetDataset(squares), batch_size=64).batch(0)
    assert len(batch.tokens) == len(np.unique(batch.tokens, axis=0)) <= 16
    assert batch.caption.shape == (64,)


def test_corrupt_images_are_replaced_and_counted(tmp_path, make_shard):
    write_shard, good_rows = make_shard
    rows = good_rows(20, 0)
    for i in (3, 4):
        rows[i] = (rows[i][0][:60], "this sample is corrupt", "success")
    dataset = SubsetDataset([write_shard(tmp_path, "00000000", rows)])
    loader = load(dataset, samples_seen=60)
    replaced = 0
    corrupt_token = TOKENIZER(["corrupt"])[0, 1]
    for batch in loader.batches():
        replaced += batch.replaced
        assert corrupt_token not in batch.tokens
        assert same(load(dataset, samples_seen=60).batch(batch.step), batch)
    assert replaced == 6  # each of the two, in each of three epochs
    assert loader.corrupt == ["00000000/00000000000003", "00000000/00000000000004"]


def test_only_corrupt_images_is_an_error(tmp_path, make_shard):
    write_shard, good_rows = make_shard
    rows = [(body[:60], caption, status) for body, caption, status in good_rows(3, 0)]
    with pytest.raises(DataError, match="of the 3 images cannot be decoded, such as 00000000/"):
        load(SubsetDataset([write_shard(tmp_path, "00000000", rows)])).batch(0)


def test_decoded_images_match_the_files(squares):
    """With a crop of everything and no resize the loader passes pixels through."""
    dataset = SubsetDataset(squares, [np.array([7]), np.empty(0, int)])
    original = decode_rgb(dataset.image(0))
    loader = Loader(dataset, TOKENIZER, original.shape[:2], 1, 1, 0, crop_scale=(1.0, 1.0))
    image = loader.batch(0).images[0]
    assert image.shape == original.shape
    assert np.abs(image.mean((0, 1)) - original.mean((0, 1))).max() < 12
