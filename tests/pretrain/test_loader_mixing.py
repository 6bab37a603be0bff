import numpy as np
import pytest

from curate.pretrain.data.dataset import SubsetDataset
from curate.pretrain.data.loader import Loader
from curate.pretrain.data.mix_options import MixOptions
from curate.pretrain.data.mixed_batch import Mixing
from curate.pretrain.processes.world import ALONE, World

OPTIONS = MixOptions(mixup=0.4, cutmix=1.0, probability=0.8)


@pytest.fixture(scope="module")
def labelled(squares):
    return SubsetDataset(squares, captions=None, labels="caption")


MIXING = Mixing(OPTIONS, 3)


def loader(dataset, world=ALONE, threads=0, mixing: Mixing | None = MIXING):
    return Loader(dataset, None, (32, 32), 13, 60, 3, world=world, threads=threads, mixing=mixing)


def dense(batch, classes: int) -> np.ndarray:
    weights = np.ones(len(batch.label_rows)) if batch.label_weights is None else batch.label_weights
    found = np.zeros((len(batch.images), classes))
    np.add.at(found, (batch.label_rows, batch.label_ids), weights)
    return found


@pytest.mark.parametrize(("size", "threads"), [(1, 2), (2, 0), (3, 0), (5, 1), (16, 0)])
def test_mixing_does_not_depend_on_processes_or_threads(labelled, size, threads):
    classes = len(labelled.classes)
    whole = loader(labelled)
    parts = [loader(labelled, World(rank, size), threads) for rank in range(size)]
    for batch, *shares in zip(whole.batches(), *(part.batches() for part in parts), strict=True):
        np.testing.assert_array_equal(batch.images, np.concatenate([share.images for share in shares]))
        np.testing.assert_allclose(
            dense(batch, classes), np.concatenate([dense(share, classes) for share in shares]), atol=1e-6
        )
        assert [share.first for share in shares] == np.cumsum([0, *(len(s.images) for s in shares)])[:-1].tolist()
        np.testing.assert_array_equal(batch.samples, np.concatenate([share.samples for share in shares]))


def test_labels_stay_whole_and_most_pictures_change(labelled):
    plain, mixed = loader(labelled, mixing=None), loader(labelled)
    changed = []
    for before, after in zip(plain.batches(), mixed.batches(), strict=True):
        target = dense(after, len(labelled.classes))
        np.testing.assert_allclose(target.sum(1), 1, atol=1e-6)
        same = (before.images == after.images).all((1, 2, 3))
        kept = target[np.arange(len(target)), dense(before, len(labelled.classes)).argmax(1)]
        assert (kept[same & (target.max(1) == 1)] == 1).all()
        changed += (~same).tolist()
    assert 0.4 < np.mean(changed) < 1


def test_samples_with_captions_are_left_alone(squares):
    dataset = SubsetDataset(squares, captions="caption", labels="caption")

    def tokens(texts):
        return np.ones((len(texts), 4), np.int64)

    mixed = Loader(dataset, tokens, (32, 32), 13, 26, 3, mixing=Mixing(OPTIONS, 3))  # type: ignore[arg-type]
    plain = Loader(dataset, tokens, (32, 32), 13, 26, 3)  # type: ignore[arg-type]
    for a, b in zip(mixed.batches(), plain.batches(), strict=True):
        np.testing.assert_array_equal(a.images, b.images)
