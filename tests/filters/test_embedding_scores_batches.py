"""s-CLIPLoss against a float64 implementation over the whole matrix, and the batches that it draws."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.errors import DataError
from curate.filters.draw import everything, uid_hash
from curate.filters.log_sum_exp import log_sum_exp_both
from curate.filters.memory import MemoryContext
from curate.filters.permuted_batches import Permutation, rank_rows
from curate.filters.scorers.s_clip_loss import SClipLoss


def unit_rows(rng: np.random.Generator, n: int, d: int, around: float = 0.0) -> np.ndarray:
    rows = rng.standard_normal((n, d)) + around
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def naive_log_sum_exp(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=1)
    return top + np.log(np.exp(logits - top[:, None]).sum(axis=1))


def naive_scores(image: np.ndarray, text: np.ndarray, tau: float) -> np.ndarray:
    logits = image.astype(np.float64) @ text.astype(np.float64).T / tau
    return tau * np.diag(logits) - tau / 2 * (naive_log_sum_exp(logits) + naive_log_sum_exp(logits.T))


def column(pool, name: str) -> np.ndarray:
    return np.concatenate([part.array(name) for part in pool.members])


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 60),
    m=st.integers(1, 60),
    d=st.integers(1, 24),
    tau=st.sampled_from([1e-4, 1e-3, 0.005, 0.01, 0.02, 0.07, 1.0, 50.0]),
    length=st.sampled_from([0.01, 1.0, 3.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_both_log_sum_exps_equal_float64(n, m, d, tau, length, seed):
    rng = np.random.default_rng(seed)
    a, b = unit_rows(rng, n, d) * np.float32(length), unit_rows(rng, m, d)
    rows, columns = log_sum_exp_both(a, b, tau)
    logits = a.astype(np.float64) @ b.astype(np.float64).T / tau
    np.testing.assert_allclose(rows * tau, naive_log_sum_exp(logits) * tau, atol=2e-6 * (1 + tau) * (1 + length))
    np.testing.assert_allclose(columns * tau, naive_log_sum_exp(logits.T) * tau, atol=2e-6 * (1 + tau) * (1 + length))


def test_opposed_rows_underflow_and_equal_rows_overflow_nowhere():
    """Every cosine -1, then every cosine 1, at a temperature where exp(cos / tau) has no float32."""
    row = np.zeros((1500, 8), np.float32)
    row[:, 3] = 1
    for sign in (-1, 1):
        rows, columns = log_sum_exp_both(row, sign * row[:700], 0.01)
        np.testing.assert_allclose(rows, sign * 100 + np.log(700), rtol=1e-6)
        np.testing.assert_allclose(columns, sign * 100 + np.log(1500), rtol=1e-6)


def test_more_than_one_tile_each_way():
    rng = np.random.default_rng(3)
    a, b = unit_rows(rng, 2100, 16, 0.3), unit_rows(rng, 1100, 16, 0.3)
    rows, columns = log_sum_exp_both(a, b, 0.01)
    logits = a.astype(np.float64) @ b.astype(np.float64).T / 0.01
    np.testing.assert_allclose(rows, naive_log_sum_exp(logits), atol=1e-4)
    np.testing.assert_allclose(columns, naive_log_sum_exp(logits.T), atol=1e-4)


def test_a_case_worked_by_hand(make_pool):
    """Two pairs with cosines (1, 0; 0, 1), tau = 1: each score is 1 - log(1 + e) = -0.3132617."""
    eye = np.eye(2, dtype=np.float32)
    pool = make_pool({}, {"e.image": eye, "e.text": eye}).score("s", SClipLoss(encoder="e", temperature=1.0))
    np.testing.assert_allclose(column(pool, "s"), 1 - np.log(1 + np.e), rtol=1e-6)


def planted(n: int, d: int, seed: int, missing: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """float16 embeddings with missing, zero and repeated rows."""
    rng = np.random.default_rng(seed)
    image = unit_rows(rng, n, d, 0.5).astype(np.float16).astype(np.float32)
    text = unit_rows(rng, n, d, 0.2).astype(np.float16).astype(np.float32)
    if n > 3:
        image[1], text[1] = image[0], text[0]
    for place, row in enumerate(missing):
        if place % 3 == 0:
            image[row % n] = np.nan
        elif place % 3 == 1:
            text[row % n] = np.nan
        else:
            image[row % n] = 0
    return image, text


def expected(pool, image, text, scorer: SClipLoss, seed: int) -> np.ndarray:
    """The definition, row by row of `ranks`: batches are cut from each permutation, the last one is filled up."""
    usable = np.isfinite(image).all(1) & np.isfinite(text).all(1) & image.any(1) & text.any(1)
    ranks = rank_rows(pool, seed, "s_clip_loss", source, ("e.image", "e.text"))
    rank = np.concatenate([ranks.of(part) for part in pool.members])
    assert sorted(rank[usable]) == list(range(usable.sum()))
    assert (rank[~usable] == -1).all()
    size, tau, n = scorer.batch_size, float(scorer.temperature), int(usable.sum())
    total = np.zeros(len(image))
    for k in range(scorer.permutations):
        cut = Permutation(n, size, seed, "s_clip_loss", k)
        batch, context = cut.places(rank)
        for b in range(cut.whole + (cut.left_over > 0)):
            own = np.flatnonzero(batch == b)
            rows = np.concatenate([own, np.flatnonzero(context)]) if b == cut.whole else own
            assert len(rows) == len(set(rows)) == min(size, n)
            total[own] += naive_scores(image[rows], text[rows], tau)[: len(own)]
    return np.where(usable, total / scorer.permutations, np.nan)


def source(part, image, text):
    a, b = part.array(image), part.array(text)
    return np.isfinite(a).all(1) & np.isfinite(b).all(1) & a.any(1) & b.any(1), {}


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 90),
    size=st.integers(2, 40),
    tau=st.sampled_from([0.01, 0.05, 0.5]),
    missing=st.lists(st.integers(0, 89), max_size=6),
    cuts=st.lists(st.integers(0, 90), max_size=5),
    seed=st.integers(0, 1000),
)
@example(n=40, size=8, tau=0.01, missing=[], cuts=[3, 3, 30], seed=0)  # nothing left over
@example(n=41, size=40, tau=0.01, missing=[], cuts=[], seed=0)  # one row left over
@example(n=9, size=40, tau=0.01, missing=[2, 5, 7], cuts=[4], seed=0)  # one batch of all
def test_scores_equal_the_definition_however_the_pool_is_cut(make_pool, n, size, tau, missing, cuts, seed):
    image, text = planted(n, 12, seed, missing)
    scorer = SClipLoss(encoder="e", batch_size=size, permutations=3, temperature=tau)
    embeddings = {"e.image": image, "e.text": text}
    usable = np.isfinite(image).all(1) & np.isfinite(text).all(1) & image.any(1) & text.any(1)
    pool = make_pool({}, embeddings, seed=seed)
    if not usable.any():
        with pytest.raises(DataError, match="has an image and a text embedding"):
            pool.score("s", scorer)
        return
    whole = column(pool.score("s", scorer), "s")
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, expected(pool, image, text, scorer, seed), atol=2e-6)
    order = np.random.default_rng(seed).permutation(n)
    parts = make_pool({}, embeddings, cuts=[c for c in cuts if c <= n], order=order, seed=seed)
    again = column(parts.score("s", scorer), "s")
    np.testing.assert_array_equal(again, whole[order])  # bit for bit


def test_what_is_on_record(make_pool):
    image, text = planted(50, 8, 1, [4, 9, 20])
    pool = make_pool({}, {"e.image": image, "e.text": text}, cuts=[20])
    scorer = SClipLoss(encoder="e", batch_size=20, permutations=2, temperature=0.05)
    state = scorer.fit(MemoryContext().of(pool))
    facts = scorer.describe(state)
    assert facts == {
        "temperature": 0.05,
        "batch_size": 20,
        "one_batch_of_all": False,
        "permutations": 2,
        "scored": 47,
        "without_embedding": 3,
        "context_rows_per_permutation": 13,
    }
    json.dumps(facts, allow_nan=False)
    small = SClipLoss(encoder="e", temperature=0.05)
    facts = small.describe(small.fit(MemoryContext().of(pool)))
    assert (facts["one_batch_of_all"], facts["batch_size"], facts["permutations"]) == (True, 47, 1)


def test_the_temperature_comes_from_the_encoder(make_pool):
    class Loader:
        logit_scale = 20.0

        def load(self):
            return self

    image, text = planted(30, 8, 2, [])
    pool = make_pool({}, {"e.image": image, "e.text": text})
    auto = SClipLoss(encoder="e")
    assert auto.encoders() == ["e"]
    assert SClipLoss(encoder="e", temperature=0.05).encoders() == []
    found = pool.score("s", auto, MemoryContext(encoders={"e": Loader()}))
    by_hand = pool.score("s", SClipLoss(encoder="e", temperature=0.05))
    np.testing.assert_array_equal(column(found, "s"), column(by_hand, "s"))


def test_an_empty_pool_and_a_part_without_rows(make_pool):
    none = np.empty((0, 4), np.float32)
    scorer = SClipLoss(encoder="e", temperature=0.1, batch_size=4)
    assert len(column(make_pool({}, {"e.image": none, "e.text": none}).score("s", scorer), "s")) == 0
    image, text = planted(10, 4, 0, [])
    image[:5] = np.nan  # nothing was fetched in the first part
    pool = make_pool({}, {"e.image": image, "e.text": text}, cuts=[5, 5]).score("s", scorer)
    assert np.isnan(column(pool, "s")).tolist() == [True] * 5 + [False] * 5


def test_embeddings_of_two_spaces_are_refused(make_pool):
    pool = make_pool({}, {"e.image": np.ones((3, 4), np.float32), "e.text": np.ones((3, 5), np.float32)})
    with pytest.raises(DataError, match="not of one space"):
        pool.score("s", SClipLoss(encoder="e", temperature=1.0))


def test_a_repeated_uid_gets_ranks_of_its_own(make_pool):
    pool = make_pool({"uid": ["00" * 16] * 7 + ["ff" * 16]}, cuts=[3])
    ranks = rank_rows(pool, 0, "test", everything)
    assert sorted(np.concatenate([ranks.of(p) for p in pool.members])) == list(range(8))


def test_permutations_are_independent_and_fair():
    """Two rows share a batch with probability (B - 1) / (n - 1), in every permutation anew."""
    n, size = 200, 20
    ranks = np.arange(n)
    batches = np.stack([Permutation(n, size, 5, "x", k).places(ranks)[0] for k in range(200)])
    assert all((np.bincount(row) == size).all() for row in batches)
    together = np.mean([(batches[:, i] == batches[:, i + 1]).mean() for i in range(n - 1)])
    assert abs(together - (size - 1) / (n - 1)) < 0.01
    assert (batches[0] != batches[1]).mean() > 0.8


def test_ranks_over_many_buckets_are_the_order_of_the_hash(make_pool, monkeypatch):
    monkeypatch.setattr("curate.filters.permuted_batches.ROWS_PER_BUCKET", 7)
    pool = make_pool({"number": np.arange(300)}, cuts=[10, 10, 250], seed=1)
    ranks = rank_rows(pool, 4, "test", everything)
    assert len(ranks.before) == 43
    rank = np.concatenate([ranks.of(p) for p in pool.members])
    hashes = np.concatenate([uid_hash(p.uids(), 4, "test") for p in pool.members])
    np.testing.assert_array_equal(rank, np.argsort(np.argsort(hashes)))
