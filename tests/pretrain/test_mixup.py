"""Mixup and cutmix: exact, the same on any number of processes, and what their papers say."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import beta, kstest

from curate.pretrain.data.mix_options import MixOptions
from curate.pretrain.data.mixup import mix_images, mix_labels, part_of, plan, whole_pairs
from curate.pretrain.features import Labels
from curate.pretrain.processes.world import share

BOTH = MixOptions(mixup=0.4, cutmix=1.0, probability=0.8)
SIZE = (10, 12)


def pictures(n: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 3, *SIZE), dtype=np.uint8))


def labels_of(n: int) -> Labels:
    """Sample i has the classes i, and i + 1 if it is divisible by three."""
    pairs = [(i, c) for i in range(n) for c in ((i, i + 1) if i % 3 == 0 else (i,))]
    rows, ids = (torch.tensor(column, dtype=torch.int64) for column in zip(*pairs, strict=True))
    return Labels(rows, ids)


def dense(labels: Labels, n: int, classes: int) -> np.ndarray:
    found = np.zeros((n, classes))
    np.add.at(found, (labels.rows.numpy(), labels.ids.numpy()), labels.weights.numpy())
    return found


@settings(max_examples=30)
@given(n=st.integers(1, 9), step=st.integers(0, 1000), kind=st.sampled_from([(0.4, 0.0), (0.0, 1.0), (0.8, 0.5)]))
def test_images_and_labels_equal_the_plan_pixel_by_pixel(n, step, kind):
    images, labels = pictures(n, step), labels_of(n)
    mix = plan(MixOptions(mixup=kind[0], cutmix=kind[1]), 7, step, 0, np.ones(n, bool), SIZE)
    found, targets = mix_images(images, mix).numpy(), dense(mix_labels(labels, mix), n, n + 1)
    own = np.zeros((n, n + 1))
    for i in range(n):
        own[i, i : i + 2] = (0.5, 0.5) if i % 3 == 0 else (1, 0)
    for i in range(n):
        p, keep = int(mix.partner[i]), float(mix.keep[i])
        assert p == (i ^ 1 if (i ^ 1) < n and keep < 1 else i) or keep == 1
        if keep == 1:
            expected = images[i].numpy()
        elif mix.cut[i]:
            top, left, bottom, right = mix.box[i]
            expected = images[i].numpy().copy()
            expected[:, top:bottom, left:right] = images[p].numpy()[:, top:bottom, left:right]
            area = (bottom - top) * (right - left) / (SIZE[0] * SIZE[1])
            assert keep == pytest.approx(1 - area, abs=1 / 8192)
        else:
            exact = images[i].numpy() * np.float64(keep) + images[p].numpy() * np.float64(1 - keep)
            expected = np.floor(exact + 0.5).astype(np.uint8)
        assert (found[i] == expected).all()
        assert targets[i] == pytest.approx(keep * own[i] + (1 - keep) * own[p])
    assert targets.sum(1) == pytest.approx(1)


@settings(max_examples=30)
@example(total=2, size=4, step=0)  # a process without samples, at an odd place
@given(total=st.integers(1, 23), size=st.integers(1, 5), step=st.integers(0, 50))
def test_processes_see_the_same_mixed_batch(total, size, step):
    images, labels, may = pictures(total, step), labels_of(total), np.arange(total) % 5 != 4
    mix = plan(BOTH, 3, step, 0, may, SIZE)
    whole, targets = mix_images(images, mix), dense(mix_labels(labels, mix), total, total + 1)
    for rank in range(size):
        first, stop = share(total, rank, size)
        a, b = whole_pairs(first, stop, total)
        assert b - a <= stop - first + 2
        here = plan(BOTH, 3, step, a, may[a:b], SIZE)
        some = mix_images(images[a:b], here)[first - a : stop - a]
        assert torch.equal(some, whole[first:stop])
        mine = part_of(mix_labels(part_of(labels, a, b), here), first - a, stop - a)
        assert (dense(mine, stop - first, total + 1) == targets[first:stop]).all()


def test_pairs_are_mixed_only_if_both_may():
    may = np.array([True, False, True, True, False, False, True])
    mix = plan(MixOptions(mixup=1.0), 0, 0, 0, may, SIZE)
    assert (mix.keep[[0, 1, 4, 5, 6]] == 1).all()
    assert mix.partner.tolist() == [0, 1, 3, 2, 4, 5, 6]
    assert mix.keep[2] == mix.keep[3] < 1


def test_shares_follow_their_distribution():
    n = 8000
    for alpha in (1.0, 2.0):  # smaller ones have much of their mass within half a step of 0 and 1
        blended = plan(MixOptions(mixup=alpha), 1, 0, 0, np.ones(n, bool), SIZE)
        assert kstest(blended.keep[::2], beta(alpha, alpha).cdf).statistic < 0.03
    blended = plan(MixOptions(mixup=0.3), 1, 0, 0, np.ones(n, bool), SIZE)
    assert np.std(blended.keep[::2]) == pytest.approx(beta(0.3, 0.3).std(), abs=0.01)
    both = plan(BOTH, 1, 0, 0, np.ones(n, bool), (224, 224))
    assert np.mean(both.keep[::2] < 1) == pytest.approx(0.8, abs=0.03)
    assert np.mean(both.cut[::2]) == pytest.approx(0.4, abs=0.03)
    again = plan(BOTH, 1, 1, 0, np.ones(n, bool), (224, 224))
    assert (again.keep != both.keep).any()


def test_multi_label_weights_are_not_shared_out():
    labels = labels_of(4)
    mix = plan(MixOptions(mixup=1.0), 0, 0, 0, np.ones(4, bool), SIZE)
    found = dense(mix_labels(labels, mix, shared=False), 4, 5)
    keep = mix.keep[0]
    assert found[0, :2] == pytest.approx([keep, 1])  # classes 0 and 1, mixed with class 1
    off = plan(MixOptions(), 0, 0, 0, np.ones(4, bool), SIZE)
    assert not MixOptions().on
    assert torch.equal(mix_images(pictures(4), off), pictures(4))
