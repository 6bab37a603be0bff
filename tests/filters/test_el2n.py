import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from curate.errors import DataError
from curate.filters.memory import MemoryColumns, MemoryContext, MemoryPool
from curate.filters.scorers.el2n import El2n, El2nReader, Proxies, errors
from curate.pretrain.weighing.proxy_recipe import ProxyRecipe
from curate.shards.demo import digits
from curate.shards.image_pass import read_images
from curate.shards.shard import Shard
from curate.shards.tar import TarWriter

RECIPE = ProxyRecipe(batch_size=32, warmup=5, lr=4e-3)


@dataclasses.dataclass(frozen=True)
class FileContext(MemoryContext):
    """A pool in memory whose pictures lie in shards."""

    files: tuple[Shard, ...] = ()

    @property
    def columns(self) -> MemoryColumns:
        return MemoryColumns(tuple(self.pool.members), self.files)


def write_digits(folder, name, scans, labels, status=None) -> Shard:
    """A shard of rendered scans with labels; rows whose status is no success have no picture."""
    images, _ = digits.scans()
    keys = [f"{name}{i:06d}" for i in range(len(scans))]
    status = ["success"] * len(scans) if status is None else status
    folder.mkdir(parents=True, exist_ok=True)
    with TarWriter(str(folder / f"{name}.tar")) as tar:
        for key, scan, good in zip(keys, scans, status, strict=True):
            if good == "success":
                picture = digits.render(images[scan], np.random.default_rng(int(scan)), 32)
                tar.write(key, {"png": digits.encode(picture, "png")})
    pq.write_table(pa.table({"key": keys, "status": status, "label": labels}), folder / f"{name}.parquet")
    return Shard(name, str(folder / f"{name}.tar"), str(folder / f"{name}.parquet"))


def context_of(shards, folder) -> FileContext:
    pool = MemoryPool.of([s.read_table() for s in shards], seed=5)
    return FileContext(folder=str(folder), own=pool, files=tuple(shards))


def scores(scorer: El2n, shards, state, threads=0) -> dict[str, np.ndarray]:
    reader = scorer.reader("hard", state)
    read_images(shards, [reader], threads)
    found = [reader.result(i) for i in range(len(shards))]
    return {name: np.concatenate([np.asarray(f[name]) for f in found]) for name in found[0]}


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory):
    """Three shards of 400 digits, a fifth of them with another digit's label: ``(shards, wrong (400,) bool)``."""
    folder = tmp_path_factory.mktemp("digits")
    rng = np.random.default_rng(3)
    scans = rng.permutation(digits.split()["pool"])[:400]
    truth = digits.scans().labels[scans]
    wrong = rng.random(400) < 0.2
    labels = np.where(wrong, (truth + rng.integers(1, 10, 400)) % 10, truth)
    spans = [slice(0, 150), slice(150, 300), slice(300, 400)]
    return [write_digits(folder, f"{i:08d}", scans[s], labels[s]) for i, s in enumerate(spans)], wrong


@pytest.fixture(scope="module")
def fitted(mislabelled, tmp_path_factory):
    scorer = El2n(label="label", seeds=2, epochs=6, grand=True, recipe=RECIPE, device="cpu")
    state = scorer.fit(context_of(mislabelled[0], tmp_path_factory.mktemp("work")))
    return scorer, state


def test_mislabelled_digits_are_harder(mislabelled, fitted):
    shards, wrong = mislabelled
    scorer, state = fitted
    found = scores(scorer, shards, state)
    for name in ("hard", "hard_grand"):
        values = found[name]
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        auc = (values[wrong][:, None] > values[~wrong]).mean() + 0.5 * (values[wrong][:, None] == values[~wrong]).mean()
        assert auc > 0.7, name
    assert found["hard"].max() <= np.sqrt(2) + 1e-6
    facts = scorer.describe(state)
    assert (facts["classes"], facts["seeds"], facts["samples"], facts["samples_seen"]) == (10, 2, 400, 2400)
    assert len(set(facts["loss"])) == 2  # two seeds, two trainings


def test_any_threads_and_any_cut_into_shards_give_the_same(mislabelled, fitted):
    shards, _ = mislabelled
    scorer, state = fitted
    together, threaded = scores(scorer, shards, state), scores(scorer, shards, state, threads=2)
    alone = [scores(scorer, [shard], state) for shard in shards]
    for name, values in together.items():
        np.testing.assert_array_equal(values, threaded[name])
        np.testing.assert_array_equal(values, np.concatenate([a[name] for a in alone]))


def test_a_batch_split_changes_nothing(mislabelled, fitted, tmp_path):
    """Other shards mean other batches: the same pictures give the same numbers, also when they do not divide evenly."""
    shards, _ = mislabelled
    scorer, state = fitted
    whole = scores(scorer, shards, state)["hard"]
    table = shards[0].read_table()
    parts = []
    for i, (start, stop) in enumerate([(0, 1), (1, 66), (66, 150)]):
        path = tmp_path / f"{i}.parquet"
        pq.write_table(table.slice(start, stop - start), path)
        parts.append(Shard(str(i), shards[0].tar, str(path)))
    np.testing.assert_allclose(scores(scorer, parts, state)["hard"], whole[:150], rtol=0, atol=1e-6)


def test_errors_by_hand_on_a_frozen_model():
    class Frozen(torch.nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.weight = torch.tensor(weight, dtype=torch.float32)

        def forward(self, images):
            x = images.float()[:, :2, 0, 0]  # the features are two channels of the first pixel
            return x, x @ self.weight.T

    pixels = np.zeros((4, 1, 1, 3), np.uint8)
    pixels[0, 0, 0, :2], pixels[1, 0, 0, :2] = (3, 4), (0, 0)
    models = [Frozen([[0.0, 0.0], [0.0, 0.0]]), Frozen([[np.log(3.0) / 3, 0.0], [0.0, 0.0]])]
    error, gradient = errors(models, pixels, np.array([0, 1]))
    # p = (1/2, 1/2) twice; then p = (3/4, 1/4) for x = (3, 4) and (1/2, 1/2) for x = 0. |p - y| = sqrt(2) (1 - p_y).
    np.testing.assert_allclose(error, np.sqrt(2) * np.array([(0.5 + 0.25) / 2, 0.5]), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.sqrt(2) * np.array([5 * (0.5 + 0.25) / 2, 0]), rtol=1e-6)


def test_the_gradient_of_the_last_layer_is_what_autograd_says(fitted):
    scorer, state = fitted
    reader = El2nReader(scorer, "hard", state)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
    _, gradient = errors(reader._proxies[:1], pixels, np.array([4, 7]))
    proxy = reader._proxies[0]
    for i, label in enumerate((4, 7)):
        head = proxy.head.weight.detach().clone().requires_grad_(True)
        features, _ = proxy(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        loss = torch.nn.functional.cross_entropy((features @ head.T)[i : i + 1], torch.tensor([label]))
        (found,) = torch.autograd.grad(loss, head)
        assert gradient[i] == pytest.approx(float(found.norm()), rel=1e-4)


def test_rows_without_label_or_picture_are_nan(tmp_path):
    scans = digits.split()["pool"][:30]
    labels = [f"digit {d}" for d in digits.scans().labels[scans]]
    labels[4] = None
    status = ["success"] * 30
    status[9] = "failed_to_download"
    shard = write_digits(tmp_path, "00000000", scans, labels, status)
    empty = write_digits(tmp_path, "00000001", scans[:0], pa.array([], pa.string()), [])
    scorer = El2n(label="label", seeds=1, samples_seen=40, recipe=RECIPE, device="cpu")
    context = context_of([shard], tmp_path / "work")
    state = scorer.fit(context)
    found = scores(scorer, [shard], state)
    assert list(found) == ["hard"]
    assert np.flatnonzero(np.isnan(found["hard"])).tolist() == [4, 9]
    assert state.reports[0]["samples"] == 28
    again = scorer.fit(context_of([shard], tmp_path / "again"))
    np.testing.assert_array_equal(found["hard"], scores(scorer, [shard], again)["hard"])
    nothing = scorer.reader("hard", state)
    nothing.begin(0, empty, 0)
    nothing.finish()
    assert len(nothing.result(0)["hard"]) == 0


@pytest.mark.parametrize("labels", [["one"] * 5, [None] * 5])
def test_fewer_than_two_classes_is_an_error(tmp_path, labels):
    shard = write_digits(tmp_path, "00000000", digits.split()["pool"][:5], pa.array(labels, pa.string()))
    with pytest.raises(DataError, match="it takes 2 to"):
        El2n(label="label").fit(context_of([shard], tmp_path / "work"))


def test_a_pool_without_pictures_is_told(make_pool):
    with pytest.raises(DataError, match="needs pictures"):
        El2n(label="label").fit(MemoryContext().of(make_pool({"label": ["a", "b"]})))


def test_a_weight_file_of_other_classes_is_refused(fitted):
    scorer, state = fitted
    other = Proxies(state.folder, state.names, state.classes[:3], state.reports)
    with pytest.raises(DataError, match="cannot read the proxy"):
        scorer.reader("hard", other)
