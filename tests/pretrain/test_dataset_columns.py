"""Captions from several columns, labels of all kinds, and data sets mixed in one training."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import ConfigError, DataError
from curate.pretrain.data.captions import Captions
from curate.pretrain.data.dataset import SubsetDataset
from curate.pretrain.data.labels import LabelColumn, Labels, LabelValues
from curate.pretrain.data.loader import Loader
from curate.pretrain.data.mixture import Mixture
from curate.pretrain.data.tokenizer import WordTokenizer

TOKENIZER = WordTokenizer(8, 1 << 20)


def with_columns(shard, **columns):
    table = shard.read_table()
    for name, values in columns.items():
        table = table.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
    pq.write_table(table, shard.table)
    return shard


@pytest.fixture
def pool(tmp_path, make_shard):
    """Ten samples; the caption of row 2 and those of rows 2 and 4 of a second column are missing."""
    write, good = make_shard
    rows = [(body, None if i == 2 else f"given {i}", status) for i, (body, _, status) in enumerate(good(10, 0))]
    shard = write(tmp_path, "00000000", rows)
    synthetic = [None if i in (2, 4) else f"synthetic {i}" for i in range(10)]
    several = [None if i < 5 else [f"one {i}", None, f"two {i}"] for i in range(10)]
    return with_columns(shard, synthetic=synthetic, several=several, label=[0, 1] * 5)


def drawn(dataset, i, count=2000):
    return Counter(dataset.texts(np.full(count, i), 3, np.arange(count)))


def test_captions_are_drawn_by_their_weights(pool):
    dataset = SubsetDataset([pool], captions={"caption": 0.7, "synthetic": 0.3})
    assert (len(dataset), dataset.without_caption, dataset.captioned) == (9, 1, 9)
    counts = drawn(dataset, 0)
    assert set(counts) == {"given 0", "synthetic 0"}
    assert counts["given 0"] / 2000 == pytest.approx(0.7, abs=0.04)
    assert drawn(dataset, 3) == {"given 4": 2000}  # the second column has none
    lists = SubsetDataset([pool], captions={"caption": 1, "several": 3})
    counts = drawn(lists, 8)
    assert counts["given 9"] / 2000 == pytest.approx(0.25, abs=0.04)
    assert counts["one 9"] / 2000 == pytest.approx(0.375, abs=0.04)
    assert set(counts) == {"given 9", "one 9", "two 9"}


def test_the_caption_depends_on_the_position_only(pool):
    dataset = SubsetDataset([pool], captions={"caption": 0.5, "synthetic": 0.5})
    samples, positions = np.arange(9).repeat(20), np.arange(1000, 1180)
    whole = dataset.texts(samples, 5, positions)
    assert whole == [dataset.texts(samples[i : i + 1], 5, positions[i : i + 1])[0] for i in range(180)]
    assert whole != dataset.texts(samples, 6, positions)


def test_missing_columns_are_told(pool):
    with pytest.raises(DataError, match="no column 'alt' or 'title'"):
        SubsetDataset([pool], captions={"alt": 1, "title": 1})
    with pytest.raises(DataError, match="no row table has the caption column 'title'"):
        SubsetDataset([pool], captions={"caption": 1, "title": 1})
    with pytest.raises(ConfigError, match="weight"):
        SubsetDataset([pool], captions={"caption": 0.0})
    with pytest.raises(ConfigError, match="holds int64; captions are text"):
        SubsetDataset([pool], captions="label")
    with pytest.raises(DataError, match="no column 'kind'"):
        SubsetDataset([pool], captions=None, labels="kind")
    with pytest.raises(DataError, match=r"none of the 10 selected samples has a label in the column 'kind'"):
        SubsetDataset([pool], labels="kind")
    with pytest.raises(DataError, match="a label among the classes in the column 'label'"):
        SubsetDataset([pool], labels=LabelColumn("label", ("7", "8")))


def test_labels_admit_samples_without_captions(pool):
    both = SubsetDataset([pool], labels="label")
    assert (len(both), both.captioned, both.labelled, list(both.classes)) == (10, 9, 10, ["0", "1"])
    assert both.texts(np.array([1, 2]), 0, np.array([0, 1])) == ["given 1", None]
    only = SubsetDataset([pool], captions=None, labels=LabelColumn("label", ("1",)))
    assert (len(only), only.outside) == (5, 5)
    assert [only.name(i)[-1] for i in range(5)] == ["1", "3", "5", "7", "9"]
    assert (
        len({d.identity() for d in (both, only, SubsetDataset([pool], labels=LabelColumn("label", ("1", "0"))))}) == 3
    )
    images = SubsetDataset([pool], captions=None)
    assert len(images) == 10


@given(
    rows=st.lists(st.none() | st.lists(st.none() | st.integers(-3, 12), max_size=4), min_size=1, max_size=20),
    cut=st.integers(0, 20),
)
def test_labels_are_what_a_loop_finds(rows, cut):
    parts = [LabelValues(pa.array(part, pa.list_(pa.int64())), "x") for part in (rows[:cut], rows[cut:])]
    labels = Labels(parts, None)
    expected = [sorted({v for v in row or [] if v is not None}) for row in rows]
    assert labels.classes == [str(v) for v in sorted({v for row in expected for v in row})]
    sources = np.arange(len(rows))[::-1]
    found_rows, ids = labels.of(sources)
    found = [[int(labels.classes[i]) for i in ids[found_rows == r]] for r in range(len(rows))]
    assert found == expected[::-1]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_any_kind_of_text_column_serves(kind):
    column = pa.chunked_array([pa.array(["a", None]).cast(kind), pa.array(["b"]).cast(kind)])
    captions = Captions.read(pa.table({"c": column}), {"c": 1.0}, "x")
    assert captions.there.tolist() == [True, False, True]
    assert [captions.choose(i, (0.5, 0.5)) for i in range(3)] == ["a", None, "b"]


# --- mixtures


@pytest.fixture
def members(tmp_path, make_shard):
    write, good = make_shard
    first = write(tmp_path / "a", "00000000", good(30, 0))
    second = with_columns(write(tmp_path / "b", "00000000", good(12, 1)), label=["x", "y"] * 6)
    return SubsetDataset([first]), SubsetDataset([second], captions=None, labels="label")


@given(
    shares=st.lists(st.floats(0.01, 10), min_size=1, max_size=4),
    start=st.integers(0, 10**9),
    count=st.integers(1, 3000),
)
def test_every_stretch_has_the_given_shares(members_of_many, shares, start, count):
    mixture = Mixture(list(zip(members_of_many, shares, strict=False)))
    which, own = mixture.place(np.arange(start, start + count))
    counts = np.bincount(which, minlength=len(shares))
    expected = np.array(shares) / sum(shares) * count
    assert (np.abs(counts - expected) < 4 + 1e-5 * count).all()
    for k in range(len(shares)):
        assert (np.diff(own[which == k]) == 1).all()  # each goes through its own positions, one by one


class Numbers:
    """A data set of `n` samples that can only be counted."""

    classes = ()

    def __init__(self, n):
        self.distinct = self.n = n
        self.without_caption = 0

    def __len__(self):
        return self.n

    def order(self, seed, start, stop):
        return np.arange(start, stop) % self.n


@pytest.fixture(scope="module")
def members_of_many():
    return [Numbers(n) for n in (10, 3, 50, 7)]


def test_own_positions_begin_at_zero(members_of_many):
    mixture = Mixture(list(zip(members_of_many, (3, 1, 2, 1), strict=True)))
    which, own = mixture.place(np.arange(100))
    assert [own[which == k][0] for k in range(4)] == [0, 0, 0, 0]


def test_mixed_batches_hold_captions_and_labels(members):
    pairs, labelled = members
    mixture = Mixture([(pairs, 0.75), (labelled, 0.25)])
    assert (len(mixture), mixture.distinct, list(mixture.classes)) == (42, 42, ["x", "y"])
    loader = Loader(mixture, TOKENIZER, (32, 32), 16, 160, 0)
    seen: list[int] = []
    for batch in loader.batches():
        from_second = batch.samples >= 30
        assert from_second.sum() == 4
        assert np.array_equal(batch.caption < 0, from_second)
        assert np.array_equal(batch.label_rows, np.flatnonzero(from_second))
        assert np.array_equal(batch.label_ids, (batch.samples[from_second] - 30) % 2)
        for row, i in zip(batch.caption[~from_second], batch.samples[~from_second], strict=True):
            assert batch.texts[row] == pairs.caption(int(i))
        seen += batch.samples.tolist()
    assert [i for i in seen if i < 30] == pairs.order(0, 0, 120).tolist()
    assert set(Counter(i for i in seen if i >= 30).values()) == {3, 4}  # 40 sights of 12 samples
    assert mixture.name(31) == labelled.name(1)
    assert mixture.image(31) == labelled.image(1)


def test_a_corrupt_sample_is_replaced_by_one_of_its_own_data_set(tmp_path, make_shard):
    write, good = make_shard
    broken = [(body[:50] if i < 4 else body, caption, s) for i, (body, caption, s) in enumerate(good(8, 1))]
    first = SubsetDataset([write(tmp_path / "a", "00000000", good(5, 0))])
    second = SubsetDataset([write(tmp_path / "b", "00000000", broken)])
    mixture = Mixture([(first, 1), (second, 1)])
    loader = Loader(mixture, TOKENIZER, (32, 32), 8, 64, 0)
    replaced = 0
    for batch in loader.batches():
        assert (batch.samples >= 5).sum() == 4
        assert not ((batch.samples >= 5) & (batch.samples < 9)).any()
        replaced += batch.replaced
    assert replaced >= 8


def test_mixtures_that_make_no_sense_are_refused(members, pool):
    pairs, labelled = members
    with pytest.raises(ConfigError, match="share"):
        Mixture([(pairs, 1), (labelled, 0)])
    with pytest.raises(ConfigError, match="number their classes differently"):
        Mixture([(labelled, 1), (SubsetDataset([pool], labels="label"), 1)])
    assert Mixture([(pairs, 1), (labelled, 1)]).identity() != Mixture([(pairs, 1), (labelled, 2)]).identity()
