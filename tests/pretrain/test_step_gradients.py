"""Pieces of a batch, cached features: the same gradients as the whole batch."""

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from curate.pretrain.assembly import assemble
from curate.pretrain.data.batch import Batch
from curate.pretrain.data.label_space import LabelSpace
from curate.pretrain.features import TeacherFeatures
from curate.pretrain.processes.parallel import Wrapped
from curate.pretrain.processes.world import ALONE
from curate.pretrain.recipe import RECIPES, Recipe
from curate.pretrain.step import Step, _pieces

sys.path.insert(0, str(Path(__file__).parent))
from training_runs import tiny_model

SPACE = LabelSpace(("a", "b", "c"))
LABELS = {"labels": {"column": "label"}}
CPU = torch.device("cpu")


class Made:
    """Teachers whose answers are drawn once, by sample."""

    def __init__(self, count: int, dim: int) -> None:
        generator = torch.Generator().manual_seed(3)
        self.image, self.text = (
            nn.functional.normalize(torch.randn(count, dim, generator=generator), dim=1) for _ in range(2)
        )
        self.asked: list[int] = []

    def __call__(self, batch: Batch, piece: slice) -> list[TeacherFeatures]:
        self.asked.append(piece.stop - piece.start)
        return [TeacherFeatures(self.image[piece], self.text[piece], scale=7.0)]


def batch(count: int = 11, captions: str = "all") -> Batch:
    rng = np.random.default_rng(count)
    texts = ["a b", "c", "d e f", "g", "h i", "j"]
    caption = rng.integers(0, len(texts), count)
    order = {c: i for i, c in enumerate(dict.fromkeys(caption.tolist()))}
    caption = np.array([order[c] for c in caption.tolist()])
    if captions == "some":
        caption[::3] = -1
    if captions == "none":
        caption[:] = -1
    tokens = rng.integers(1, 500, (len(order), 16))
    tokens[:, 5] = 511
    if captions == "none":
        tokens = tokens[:0]
    rows = np.repeat(np.arange(count), np.arange(count) % 3)  # 0, 1 or 2 labels each
    return Batch(
        step=0,
        first=0,
        total=count,
        samples=np.arange(count),
        images=rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        tokens=tokens,
        texts=[texts[i] for i in order] if len(tokens) else [],
        caption=caption,
        label_rows=rows,
        label_ids=rng.integers(0, 3, len(rows)),
        replaced=0,
    )


def gradients(recipe: Recipe, model: str, some: Batch, micro_batch: int) -> tuple[dict[str, torch.Tensor], Any, Any]:
    """Gradients, terms of the loss, and the network."""
    teacherless = recipe.model_copy(update={"distill": ()})
    assembly = assemble(teacherless, model, 0, CPU, None, SPACE if recipe.labels else None)
    network = assembly.network.double()
    made = Made(len(some.images), 16) if recipe.distill else None
    step = Step(
        Wrapped(network, ALONE, "ddp", CPU),
        recipe.objective(assembly.classes),
        ALONE,
        CPU,
        nullcontext,
        lambda batch, number, piece: None,
        micro_batch=micro_batch,
        teachers=made,  # type: ignore[arg-type]
    )
    terms = step.gradients(some)
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return found, terms, (network, made)


PAIRS = {
    "clip": {"type": "clip"},
    "clip groups": {"type": "clip", "groups": 2, "loss_chunk": 3},
    "siglip": {"type": "siglip"},
    "matryoshka": {"type": "clip", "matryoshka": [4, 8]},
    "supcon": {"type": "clip", **LABELS, "supcon": {}},
    "teacher": {"type": "clip", "distill": [{"model": "x"}]},
    "teacher alone": {"type": "siglip", "distill": [{"model": "x"}], "contrastive_weight": 0.0},
    "labels": {"type": "siglip", **LABELS},
    "labels alone": {"type": "clip", **LABELS, "contrastive_weight": 0.0},
    "locked": {"type": "clip", "lock": {"image": True}, **LABELS},
}


@pytest.mark.parametrize("captions", ["all", "some", "none"])
@pytest.mark.parametrize("name", PAIRS)
def test_pieces_have_the_whole_batch_s_gradients(tmp_path, monkeypatch, name, captions):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # what is compared are methods, not roundings
    recipe = RECIPES[PAIRS[name]["type"]].model_validate({**PAIRS[name], "batch_size": 11})
    model = tiny_model(tmp_path)
    whole, terms, _ = gradients(recipe, model, batch(captions=captions), 0)
    for size in (1, 4, 10):
        pieces, again, (_, teachers) = gradients(recipe, model, batch(captions=captions), size)
        assert whole.keys() == pieces.keys()
        for key, expected in whole.items():
            assert float((pieces[key] - expected).abs().max()) < 1e-6, key
        assert {n: pytest.approx(float(t), abs=1e-6) for n, t in terms.items()} == {
            n: float(t) for n, t in again.items()
        }
        if teachers is not None:
            assert max(teachers.asked) <= size  # they, too, see a piece at a time
            assert sum(teachers.asked) == 11


def test_losses_of_single_samples_need_no_second_pass(tmp_path):
    recipe = RECIPES["clip"].model_validate({"type": "clip", **LABELS, "contrastive_weight": 0.0})
    calls = []

    def counted(recipe: Recipe) -> None:
        assembly = assemble(recipe, tiny_model(tmp_path), 0, CPU, None, SPACE)
        objective = recipe.objective(SPACE)
        wrapped = Wrapped(assembly.network, ALONE, "ddp", CPU)
        step = Step(wrapped, objective, ALONE, CPU, nullcontext, lambda *_: calls.append(1), micro_batch=4)
        step.gradients(batch())

    counted(recipe)
    assert len(calls) == 3
    calls.clear()
    counted(recipe.model_copy(update={"contrastive_weight": 1.0}))
    assert len(calls) == 6  # twice three pieces


@pytest.mark.parametrize("size", [0, 4])
def test_batch_norm_is_recorded_once(tmp_path, size):
    recipe = RECIPES["clip"].model_validate({"type": "clip"})
    vision = {"layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
    model = tiny_model(tmp_path, vision=vision)
    assembly = assemble(recipe, model, 0, CPU)
    norm = assembly.network.model.visual.bn1
    wrapped = Wrapped(assembly.network, ALONE, "ddp", CPU)
    step = Step(wrapped, recipe.objective(), ALONE, CPU, nullcontext, lambda *_: None, micro_batch=size)
    seen = []
    norm.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].detach()))
    step.gradients(batch())
    pieces = seen[-(3 if size else 1) :]
    assert len(seen) == (6 if size else 1)
    expected = torch.zeros_like(norm.running_mean)
    for x in pieces:
        expected.lerp_(x.mean((0, 2, 3)), norm.momentum)
    assert norm.num_batches_tracked == len(pieces)
    assert torch.allclose(norm.running_mean, expected, atol=1e-6)


def test_no_piece_of_one_where_batch_norm_needs_two(tmp_path):
    vision = {"layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
    recipe = RECIPES["clip"].model_validate({"type": "clip"})
    assembly = assemble(recipe, tiny_model(tmp_path, vision=vision), 0, CPU)
    wrapped = Wrapped(assembly.network, ALONE, "ddp", CPU)
    step = Step(wrapped, recipe.objective(), ALONE, CPU, nullcontext, lambda *_: None, micro_batch=2)
    step.gradients(batch(3))  # would be one and two
    assert torch.isfinite(assembly.network.model.visual.conv1.weight.grad).all()


def test_cutting():
    assert _pieces(10, 0, 10) == [slice(0, 10)]
    assert [p.stop - p.start for p in _pieces(10, 4, 10)] == [3, 3, 4]
    assert [p.stop - p.start for p in _pieces(1, 2, 5)] == [0, 0, 1]  # another process has five
    assert [p.stop - p.start for p in _pieces(3, 2, 3, least=2)] == [3]


def test_measuring_sees_captions_that_learning_leaves_out(tmp_path):
    recipe = RECIPES["clip"].model_validate({"type": "clip", **LABELS, "contrastive_weight": 0.0})
    assembly = assemble(recipe, tiny_model(tmp_path), 0, CPU, None, SPACE)
    assert (assembly.learns_text, assembly.unreached) == (False, True)
    wrapped = Wrapped(assembly.network, ALONE, "ddp", CPU)
    step = Step(
        wrapped, recipe.objective(SPACE), ALONE, CPU, nullcontext, lambda *_: None, learns_text=assembly.learns_text
    )
    step.gradients(batch())
    trained = {name for name, p in assembly.network.named_parameters() if p.grad is not None}
    assert trained == {n for n, _ in assembly.network.named_parameters() if ".visual." in n or n.startswith("head")}
    features, _ = step.measure(replace(batch(), step=10**6))
    assert features.text is not None
    assert features.text.shape == (11, 16)
