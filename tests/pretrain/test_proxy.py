import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from curate.errors import ConfigError, DataError
from curate.pretrain.data.label_space import label_of_each
from curate.pretrain.data.labelled import LabelledDataset
from curate.pretrain.models.architecture import resolve_model
from curate.pretrain.weighing.proxy import Proxy, load_proxy, train_proxy
from curate.pretrain.weighing.proxy_recipe import ProxyRecipe
from curate.shards.shard import Shard

MODEL = "RN-mini-32"
RECIPE = ProxyRecipe(batch_size=16, checkpoint_every_s=1e-9)


def with_labels(shard: Shard, labels) -> Shard:
    table = shard.read_table()
    pq.write_table(table.append_column("label", pa.array(labels)), shard.table)
    return shard


@pytest.fixture
def labelled(make_shard, tmp_path) -> list[Shard]:
    """Two shards of coloured squares, labelled with their colours; one row has no label, one was not fetched."""
    write, good = make_shard
    rows = good(40, 5)
    rows[7] = (None, None, "failed_to_download")
    labels = [["red", "green", "blue", "yellow"][i % 4] for i in range(40)]
    labels[3] = None
    first = with_labels(write(tmp_path / "pool", "00000000", rows), pa.array(labels, pa.string()))
    second = with_labels(write(tmp_path / "pool", "00000001", good(12, 6)), ["red", "green", "blue", "yellow"] * 3)
    return [first, second]


def train(shards, folder, name="p", **more):
    dataset = LabelledDataset(shards, "label")
    out = str(folder / f"{name}.pt")
    classes = ("blue", "green", "red", "yellow")
    report = train_proxy(RECIPE, MODEL, dataset, classes, 16 * 12 + 1, 3, out, str(folder / name), device="cpu", **more)
    return report, out


def test_only_fetched_rows_with_a_label_are_samples(labelled):
    dataset = LabelledDataset(labelled, "label")
    assert len(dataset) == 38 + 12
    assert [dataset.caption(i) for i in (0, 2, 3, 38)] == ["red", "blue", "red", "red"]
    assert dataset.image(38)[:4] == b"\x89PNG"
    assert dataset.identity() != LabelledDataset(labelled[:1], "label").identity()


def test_a_proxy_learns_its_labels_and_says_so(labelled, tmp_path):
    report, out = train(labelled, tmp_path)
    assert (report.steps, report.samples_seen, report.samples, report.corrupt) == (13, 193, 50, 0)
    assert report.accuracy > 0.5
    proxy = load_proxy(out, MODEL, 4, device="cpu")
    assert not proxy.training
    features, logits = proxy(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    torch.testing.assert_close(logits, features @ proxy.head.weight.T)
    with pytest.raises(DataError, match="cannot read the proxy"):
        load_proxy(out, MODEL, 5)


def test_killed_and_resumed_is_undisturbed(labelled, tmp_path):
    undisturbed, whole = train(labelled, tmp_path, "whole")
    before = torch.random.get_rng_state()

    class Killed(Exception):
        pass

    def kill_at(seen: int):
        def progress(done: int, total: int) -> None:
            if done == seen:
                raise Killed

        return progress

    for seen in (16, 80, 192):
        with pytest.raises(Killed):
            train(labelled, tmp_path, "torn", progress=kill_at(seen))
    resumed, torn = train(labelled, tmp_path, "torn")
    assert resumed == undisturbed
    with open(whole, "rb") as a, open(torn, "rb") as b:
        assert a.read() == b.read()
    assert torch.equal(before, torch.random.get_rng_state())


def test_seeds_differ_and_the_head_is_seeded():
    spec = resolve_model(MODEL)
    a, b, c = (Proxy(spec, 3, seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_labels_are_text_integers_or_bools():
    assert label_of_each(pa.array([3, None, -1]), "x") == ["3", None, "-1"]
    assert label_of_each(pa.array([True, False, None]), "x") == ["true", "false", None]
    assert label_of_each(pa.array([" a", None, ""]).dictionary_encode(), "x") == ["a", None, None]
    with pytest.raises(ConfigError, match="x holds double; labels are"):
        label_of_each(pa.array([0.5]), "x")
    with pytest.raises(ConfigError, match="one label per sample"):
        label_of_each(pa.array([["a", "b"]]), "x")


def test_no_labels_at_all(make_shard, tmp_path):
    write, good = make_shard
    shard = with_labels(write(tmp_path, "00000000", good(4, 1)), pa.array([None] * 4, pa.string()))
    with pytest.raises(DataError, match="no fetched sample has a label"):
        LabelledDataset([shard], "label")


def test_corrupt_images_are_replaced_and_counted(make_shard, tmp_path):
    write, good = make_shard
    rows = good(20, 9)
    rows[4] = (b"no image", "red", "success")
    labels = np.array(["red", "green", "blue", "yellow"])[np.arange(20) % 4]
    report, _ = train([with_labels(write(tmp_path, "00000000", rows), labels.tolist())], tmp_path)
    assert report.corrupt == 1
