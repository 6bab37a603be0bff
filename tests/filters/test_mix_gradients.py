"""`mix` with `m_flyt`, and `flyt`, from a pool with pictures to scores: a small honest experiment.

Digits with true and wrong captions; one score column knows which is which, one its opposite, one nothing.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from curate.errors import DataError
from curate.filters.memory import MemoryContext, MemoryPool
from curate.filters.mixing import auc
from curate.filters.scorers.flyt import Flyt, FlytState, head_scores
from curate.filters.scorers.mix import Mix
from curate.shards.evalsets.source import EvalSource

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "mixing.py"


@pytest.fixture(scope="module")
def mixing() -> ModuleType:
    """The benchmark, which knows how to make such a pool."""
    spec = importlib.util.spec_from_file_location("mixing_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def world(mixing, tmp_path_factory):
    """Pool, trusted pairs, labelled set, and a reference model trained on the trusted pairs."""
    folder = tmp_path_factory.mktemp("mixing")
    written = mixing.write_pool(folder / "pool", 300, 2)
    trusted = mixing.write_pool(folder / "trusted", 400, 1, wrong=0.0, split="trusted", seed=1)
    reference = mixing.train_reference(trusted, folder / "reference", steps=40)
    return written, trusted, mixing.write_labelled(folder / "labelled"), reference


def context_of(mixing, world, folder):
    written, trusted, *_ = world
    return MemoryContext(targets={"trusted": trusted.pool}, folder=str(folder), shards=written.shards)


@pytest.mark.parametrize("learner", ["logistic", "least_squares"])
def test_the_plain_learners_prefer_the_informative_column(mixing, world, tmp_path, learner):
    found = mixing.measure(world[0], context_of(mixing, world, tmp_path), {"type": learner, "trusted": "trusted"})
    weight = {name: line["weight"] for name, line in found["weights"].items()}
    assert weight["informative"] == max(weight.values())
    assert weight["opposed"] < 0
    assert abs(weight["noise"]) < abs(weight["opposed"]) < weight["informative"]
    assert found["auc_of_truth"] > 0.98


def test_gradients_prefer_the_informative_column(mixing, world, tmp_path):
    written, _, labelled, reference = world
    options = mixing.gradients(labelled, steps=12, seeds=2, batch_size=96, pretrained=reference, log_every=4)
    scorer = Mix.model_validate({"columns": mixing.COLUMNS, "learn": options})
    assert scorer.files() == [f"{reference}/open_clip_model.safetensors"]
    state = scorer.fit(context_of(mixing, world, tmp_path).of(written.pool))
    facts = scorer.describe(state)
    json.dumps(facts, allow_nan=False)
    weight = {line["column"]: line["weight"] for line in facts["weights"]}
    assert weight["informative"] > max(0.1, weight["noise"], weight["opposed"])
    assert weight["opposed"] < -0.1
    scores = np.concatenate([scorer.score(part, "m", state)["m"] for part in written.pool.members])
    assert auc(scores, written.truth) > 0.9
    for line in facts["weights"]:
        assert line["low"] < line["weight"] < line["high"]
        assert np.mean(line["seeds"]) == pytest.approx(line["weight"])
    assert facts["interval"] == "Student t over 2 seeds"
    assert [[p["step"] for p in run["points"]] for run in facts["curve"]] == [[4, 8, 12]] * 2
    assert [run["seed"] for run in facts["training"]] == [0, 1]


def test_a_head_scores_every_row_by_its_embeddings(mixing, world, tmp_path, make_pool):
    """Embeddings that say whether the caption is true; rows without one get no score."""
    written, _, labelled, reference = world
    rng = np.random.default_rng(0)
    sign = np.where(written.truth, 1.0, -1.0)[:, None]
    image = np.concatenate([2 * sign, rng.standard_normal((len(sign), 2))], 1).astype(np.float32)
    text = rng.standard_normal((len(sign), 3)).astype(np.float32)
    image[5] = np.nan
    tables = [part.table for part in written.pool.members]
    halves = [{"e.image": image[:300], "e.text": text[:300]}, {"e.image": image[300:], "e.text": text[300:]}]
    pool = MemoryPool.of(tables, halves)
    options = mixing.gradients(labelled, steps=18, seeds=1, batch_size=96, pretrained=reference, hidden=8)
    del options["type"]
    scorer = Flyt.model_validate({"features": "e", "train": options})
    assert (scorer.columns(), scorer.evalsets()) == (["e.image", "e.text"], [EvalSource(path=labelled)])
    context = context_of(mixing, world, tmp_path)
    state = scorer.fit(context.of(pool))
    found = np.concatenate([scorer.score(part, "f", state)["f"] for part in pool.members])
    assert found.dtype == np.float32
    assert np.flatnonzero(np.isnan(found)).tolist() == [5]
    seen = np.isfinite(found)
    assert auc(found[seen], written.truth[seen]) > 0.8
    facts = scorer.describe(state)
    json.dumps(facts, allow_nan=False)
    assert facts["head"] == {"inputs": 6, "hidden": 8, "count": 1}


def test_the_score_is_the_heads_output(make_pool):
    import torch

    from curate.pretrain.weighing.flyt import make_head

    rng = np.random.default_rng(1)
    image, text = rng.standard_normal((2, 40, 4)).astype(np.float32)
    modules = [make_head(seed, 16, 8) for seed in range(2)]
    heads = [{name: p.detach().numpy() for name, p in head.named_parameters()} for head in modules]
    with torch.no_grad():
        h = torch.from_numpy(np.concatenate([image, text], 1))
        expected = np.mean([head(h).numpy() for head in modules], 0)
    scorer = Flyt.model_validate({"features": "e", "train": {"downstream": "d", "encoder": "e"}})
    state = FlytState(heads, [])
    pool = make_pool({}, {"e.image": image, "e.text": text}, cuts=[0, 11])
    found = np.concatenate([scorer.score(part, "f", state)["f"] for part in pool.members])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(head_scores(heads[0], h.numpy() * 1e4), 0, atol=1e12)  # no overflow warning


def test_a_pool_without_pictures_cannot_train(mixing, world, tmp_path):
    written, _, labelled, _ = world
    context = MemoryContext(folder=str(tmp_path))
    scorer = Mix.model_validate({"columns": mixing.COLUMNS, "learn": mixing.gradients(labelled, steps=1)})
    with pytest.raises(DataError, match="nothing to train on"):
        scorer.fit(context.of(written.pool))
