"""Scores of single embeddings against captions, targets and heads: each equals its formula in float64."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import ConfigError, DataError
from curate.filters.memory import MemoryContext
from curate.filters.scorers import norm_sim
from curate.filters.scorers.aesthetic import Aesthetic
from curate.filters.scorers.clip_similarity import ClipSimilarity
from curate.filters.scorers.norm_sim import NormSim

D = 12


def embeddings(n: int, seed: int, d: int = D) -> np.ndarray:
    """float16 unit rows, around a common direction as CLIP's are, with NaN, zero and equal rows among them."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d)) + 0.4
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    if n > 5:
        rows[2], rows[4], rows[5] = np.nan, 0, rows[0]
    return rows


def unit(rows: np.ndarray) -> np.ndarray:
    """float64 unit rows; zero rows stay zero."""
    rows = rows.astype(np.float64)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norm, out=np.zeros_like(rows), where=norm != 0)


def column(pool, name: str) -> np.ndarray:
    return np.concatenate([part.array(name) for part in pool.members])


# --- clip_similarity


def test_images_of_another_encoder(make_pool):
    image, masked, text = embeddings(30, 0), embeddings(30, 1), embeddings(30, 2)
    pool = make_pool({}, {"e.image": image, "masked.image": masked, "e.text": text})
    scorer = ClipSimilarity(encoder="e", image_encoder="masked")
    assert scorer.columns() == ["masked.image", "e.text"]
    exact = (masked.astype(np.float64) * text.astype(np.float64)).sum(axis=1).astype(np.float32)
    np.testing.assert_allclose(column(pool.score("s", scorer), "s"), exact, rtol=1e-6)
    other = make_pool({}, {"masked.image": masked[:, :5], "e.text": text})
    with pytest.raises(DataError, match="masked and e: image embeddings are"):
        other.score("s", scorer)


# --- norm_sim


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 40),
    targets=st.integers(1, 60),
    p=st.sampled_from([2, "inf"]),
    cuts=st.lists(st.integers(0, 40), max_size=3),
    target_cuts=st.lists(st.integers(0, 60), max_size=3),
    tile=st.sampled_from([(1024, 512, 4096), (3, 5, 11), (1, 1, 1)]),
    seed=st.integers(0, 1000),
)
def test_norm_sim_equals_the_definition(make_pool, n, targets, p, cuts, target_cuts, tile, seed):
    rows, wanted = embeddings(n, seed), embeddings(targets, seed + 1)
    wanted[targets // 2] *= -1  # far from everything: its absolute similarity counts
    if not np.isfinite(wanted).all(axis=1).any():
        return
    context = MemoryContext(
        targets={"t": make_pool({}, {"e.image": wanted}, cuts=[c for c in target_cuts if c <= targets])}
    )
    scorer = NormSim(encoder="e", target="t", p=p)
    assert scorer.targets() == {"t": ["e.image"]}
    pool = make_pool({}, {"e.image": rows}, cuts=[c for c in cuts if c <= n])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("TILE_ROWS", "TILE_COLUMNS", "BLOCK"), tile, strict=True):
            patch.setattr(norm_sim, name, value)
        found = column(pool.score("s", scorer, context), "s")
    there = wanted[np.isfinite(wanted).all(axis=1)].astype(np.float64)
    products = rows.astype(np.float64) @ there.T
    exact = np.sqrt((products**2).sum(axis=1)) if p == 2 else np.abs(products).max(axis=1)
    assert found.dtype == np.float32
    assert (np.isnan(found) == np.isnan(rows).any(axis=1)).all()
    np.testing.assert_allclose(found, exact.astype(np.float32), rtol=2e-7, atol=1e-7)
    one = make_pool({}, {"e.image": rows})
    uncut = column(one.score("s", scorer, MemoryContext(targets={"t": make_pool({}, {"e.image": wanted})})), "s")
    if p == "inf":
        np.testing.assert_array_equal(found, uncut)  # bit for bit, whatever the parts and tiles
    else:
        np.testing.assert_array_max_ulp(found[~np.isnan(found)], uncut[~np.isnan(found)], 1)


def test_a_target_file_is_made_unit_rows(make_pool, tmp_path):
    """Two axes as targets, one of them of length 5: (0.6, 0.8) has norms 1 and 0.8, by hand."""
    np.save(tmp_path / "t.npy", np.array([[5.0, 0.0], [0.0, -1.0], [np.nan, 1.0], [0.0, 0.0]]))
    pool = make_pool({}, {"e.image": np.array([[0.6, 0.8]], np.float32)})
    for p, value in ((2, 1.0), ("inf", 0.8)):
        scorer = NormSim(encoder="e", target_file=str(tmp_path / "t.npy"), p=p)
        assert (scorer.targets(), scorer.files()) == ({}, [str(tmp_path / "t.npy")])
        np.testing.assert_allclose(column(pool.score("s", scorer), "s"), [value], rtol=1e-6)
        assert scorer.describe(scorer.fit(MemoryContext())) == {"p": p, "targets": 2, "dimensions": 2}


def test_norm_sim_refuses_what_does_not_fit(make_pool, tmp_path):
    pool = make_pool({}, {"e.image": np.ones((2, 3), np.float32)})
    np.save(tmp_path / "t.npy", np.ones((4, 2)))
    with pytest.raises(DataError, match="3 dimensions, the targets have 2"):
        pool.score("s", NormSim(encoder="e", target_file=str(tmp_path / "t.npy")))
    np.save(tmp_path / "empty.npy", np.full((4, 3), np.nan))
    with pytest.raises(DataError, match=r"no row of .*empty.npy has an embedding"):
        pool.score("s", NormSim(encoder="e", target_file=str(tmp_path / "empty.npy")))
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "flat.npy", np.ones(3))
    for name, message in (("missing.npy", "cannot be read"), ("text.npy", "cannot be read"), ("flat.npy", "must hold")):
        with pytest.raises(ConfigError, match=message):
            pool.score("s", NormSim(encoder="e", target_file=str(tmp_path / name)))
    for wrong in ({}, {"target": "a", "target_file": "b"}):
        with pytest.raises(ValidationError, match="either `target` or `target_file`"):
            NormSim(encoder="e", **wrong)


def test_equal_targets_by_the_thousand(make_pool):
    """Every pair is in doubt; the maximum is still exact."""
    one = embeddings(1, 7)
    context = MemoryContext(targets={"t": make_pool({}, {"e.image": np.repeat(one, 5000, axis=0)})})
    rows = embeddings(9, 8)
    found = column(make_pool({}, {"e.image": rows}).score("s", NormSim(encoder="e", target="t"), context), "s")
    exact = np.abs(rows.astype(np.float64) @ one[0].astype(np.float64)).astype(np.float32)
    np.testing.assert_array_max_ulp(found[~np.isnan(found)], exact[~np.isnan(exact)], 1)


# --- aesthetic


def layers(sizes: list[int], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    names = [0, 2, 4, 6, 7, 10][: len(sizes) - 1]  # dropouts, which have no weights, take numbers too
    found = {}
    for number, (a, b) in zip(names, pairwise(sizes), strict=True):
        found[f"layers.{number}.weight"] = (rng.standard_normal((b, a)) / np.sqrt(a)).astype(np.float32)
        found[f"layers.{number}.bias"] = rng.standard_normal(b).astype(np.float32)
    return found


def forward(tensors: dict[str, np.ndarray], x: np.ndarray, relu: bool) -> np.ndarray:
    pairs = list(tensors.values())
    for at in range(0, len(pairs), 2):
        x = x @ pairs[at].astype(np.float64).T + pairs[at + 1]
        x = np.maximum(x, 0) if relu and at < len(pairs) - 2 else x
    return x[:, 0]


def save(path, tensors: dict[str, np.ndarray], wrapped: bool = False) -> str:
    import torch
    from safetensors.numpy import save_file

    if path.suffix == ".npz":
        np.savez(path, **tensors)
    elif path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        state = {name: torch.from_numpy(values) for name, values in tensors.items()}
        torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_heads_equal_their_layers(make_pool, tmp_path, suffix, activation):
    tensors = layers([D, 32, 16, 8, 4, 1])
    scorer = Aesthetic(encoder="e", weights=save(tmp_path / f"head{suffix}", tensors), activation=activation)
    assert scorer.files() == [scorer.weights]
    rows = embeddings(40, 3) * np.float32(7)  # lengths must not matter
    pool = make_pool({}, {"e.image": rows})
    found = column(pool.score("s", scorer), "s")
    exact = forward(tensors, unit(rows), activation == "relu")
    np.testing.assert_allclose(found, exact, atol=1e-6)
    assert np.flatnonzero(np.isnan(found)).tolist() == [2]
    cut = make_pool({}, {"e.image": rows}, cuts=[3, 3, 17]).score("s", scorer)
    np.testing.assert_allclose(column(cut, "s"), found, atol=0 if activation == "none" else 1e-6)
    facts = scorer.describe(scorer.fit(MemoryContext()))
    assert facts["layers_in_file"] == 5
    assert facts["layers"] == (1 if activation == "none" else 5)
    json.dumps(facts, allow_nan=False)


def test_one_linear_layer_in_all_its_spellings(make_pool, tmp_path):
    weight, bias = np.array([[3.0, 4.0]], np.float32), np.array([0.5], np.float32)
    pool = make_pool({}, {"e.image": np.array([[2, 0], [0, 0], [3, 4]], np.float32)})
    files = [
        save(tmp_path / "v1.pth", {"weight": weight, "bias": bias}),
        save(tmp_path / "wrapped.ckpt", {"layers.0.weight": weight, "layers.0.bias": bias}, wrapped=True),
        save(tmp_path / "flat.npz", {"weight": weight[0], "bias": bias[0]}),
    ]
    for path in files:
        found = column(pool.score("s", Aesthetic(encoder="e", weights=path)), "s")
        np.testing.assert_allclose(found, [3.5, 0.5, 5.5], rtol=1e-6)


def test_heads_that_are_refused(make_pool, tmp_path):
    pool = make_pool({}, {"e.image": np.ones((2, D), np.float32)})
    bad = {
        "takes 5 dimensions": layers([5, 1]),
        "ends in 3 values": layers([D, 3]),
        "does not follow": layers([D, 4, 1]) | {"layers.2.weight": np.ones((1, 7), np.float32)},
        "NaN or infinity": layers([D, 1]) | {"layers.0.bias": np.array([np.nan], np.float32)},
        "expected `weight` and `bias`": layers([D, 1]) | {"running_mean": np.ones(3, np.float32)},
    }
    for place, (message, tensors) in enumerate(bad.items()):
        path = save(tmp_path / f"{place}.npz", tensors)
        with pytest.raises((ConfigError, DataError), match=message):
            pool.score("s", Aesthetic(encoder="e", weights=path))
    with pytest.raises(ConfigError, match="not there"):
        pool.score("s", Aesthetic(encoder="e", weights=str(tmp_path / "none.pth")))
    for name in ("text.pth", "text.npz", "text.safetensors"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(ConfigError, match=r"is not a state dict|cannot be read"):
            pool.score("s", Aesthetic(encoder="e", weights=str(tmp_path / name)))
