"""What cannot work is told in one sentence, before the first step; what goes wrong later names its step."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from curate.errors import ConfigError, CurateError, DataError
from curate.pretrain.outputs.loss_record import LossRecord
from curate.pretrain.processes.world import ALONE, World
from curate.pretrain.recipe import RECIPES, Recipe

sys.path.insert(0, str(Path(__file__).parent))
from training_runs import log, part, run, tiny_model, with_columns

CLIP: dict[str, Any] = {"type": "clip", "batch_size": 12, "lr": 1e-3, "warmup": 2, "log_every": 2}
SUPERVISED = {**CLIP, "type": "supervised", "labels": {"column": "label"}}
COCA = {"context_length": 16, "vocab_size": 512, "width": 32, "heads": 2, "layers": 1}
RESNET = {"layers": [1, 1, 1, 1], "width": 16, "patch_size": None}


def recipe_of(options: dict[str, Any]) -> Recipe:
    return RECIPES[options["type"]].model_validate(options)


@pytest.fixture
def parts(squares, tmp_path):
    return [part([with_columns(shard, tmp_path / "full") for shard in squares])]


@pytest.mark.parametrize(
    ("options", "model", "message"),
    [
        ({"type": "siglip"}, "coca", "siglip needs a model with a logit bias"),
        ({"phases": [{"share": 0.5}]}, "vit", "add up to 0.5; they must add up to 1"),
        ({"phases": [{"share": 1, "patch_keep": 0.5}]}, "resnet", "patch_keep needs a vision transformer"),
        ({"phases": [{"share": 1, "text_length": 40}]}, "vit", "captions of 40 tokens; the model takes 16"),
        ({"labels": {"column": "species"}}, "vit", "no table of what is trained on has the column 'species'"),
        ({"labels": {"column": "label", "min_samples": 999}}, "vit", "none of them with 999 samples"),
        ({"captions": {"alt": 1.0}}, "vit", "alt"),
        ({"precision": "fp16"}, "vit", "fp16.*runs on the CPU"),
        ({"grad_checkpointing": True}, "resnet", "grad_checkpointing: the image tower"),
        ({"matryoshka": [16]}, "vit", "16 is not a prefix of the 16 numbers"),
        ({"micro_batch": 1}, "resnet", "batch norm needs two samples"),
        ({"lock": {"image": True, "image_unlocked_groups": 9}}, "vit", "9 groups"),
        ({"distill": [{"model": "RN-mini-32"}]}, "vit", "weights"),
        ({"distill": [{"model": "TEACHER", "kind": "classes"}]}, "vit", "it cannot teach `classes`"),
        ({**SUPERVISED, "distill": [{"model": "TEACHER", "kind": "classes"}]}, "vit", "it cannot teach `classes`"),
        ({**SUPERVISED, "grad_checkpointing": True}, "resnet", "grad_checkpointing: the image tower"),
        (SUPERVISED, "no-such-model", "no-such-model"),
    ],
)
def test_refused_before_the_first_step(tmp_path, parts, trained, options, model, message):
    models = {
        "vit": lambda: tiny_model(tmp_path),
        "resnet": lambda: tiny_model(tmp_path, vision=RESNET),
        "coca": lambda: tiny_model(tmp_path, multimodal_cfg=COCA, text={"embed_cls": True, "output_tokens": True}),
    }
    if "distill" in options and options["distill"][0]["model"] == "TEACHER":
        options = {**options, "distill": [{**options["distill"][0], "model": trained[0]}]}
    with pytest.raises(CurateError, match=message) as told:
        run(tmp_path, recipe_of({**CLIP, **options}), models.get(model, lambda: model)(), parts, 60)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "scratch").glob("state_*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrastive_weight": 0}, "nothing to learn"),
        ({"contrastive_weight": 0, "labels": {"column": "label", "loss": None}}, "nothing to learn"),
        ({"supcon": {}}, "supcon needs `labels`"),
        ({**SUPERVISED, "labels": {"column": "label", "loss": None}}, "nothing to learn"),
        ({**SUPERVISED, "distill": [{"model": "x"}]}, "a classifier follows a teacher's `classes`"),
        ({**SUPERVISED, "captions": {"caption": 1}}, "captions"),
        ({"crop_scale": [1, 0.5]}, "least 1.0 is more than most 0.5"),
    ],
)
def test_recipes_that_contradict_themselves(options, message):
    with pytest.raises(ValidationError, match=message):
        recipe_of({**CLIP, **options})


def test_validation_needs_what_is_measured(tmp_path, squares, parts):
    bare = part([with_columns(shard, tmp_path / "bare", captions=False) for shard in squares])
    with pytest.raises(DataError, match="caption"):
        run(tmp_path, recipe_of(CLIP), tiny_model(tmp_path), parts, 60, validation=bare)
    unlabelled = part([with_columns(shard, tmp_path / "unlabelled", labels=False) for shard in squares])
    with pytest.raises(CurateError, match="label"):
        run(tmp_path, recipe_of(SUPERVISED), tiny_model(tmp_path), parts, 60, validation=unlabelled)


def test_every_process_needs_a_sample(tmp_path, parts):
    with pytest.raises(ConfigError, match="batch_size is 12, but 13 processes"):
        run(tmp_path, recipe_of(CLIP), tiny_model(tmp_path), parts, 60, world=World(0, 13))


def test_steps_without_a_finite_gradient_are_left_out_and_counted(tmp_path, parts, monkeypatch):
    from curate.pretrain.step import Step

    whole = Step.gradients
    bad = {2, 3}

    def spoilt(step: Step, batch: Any) -> Any:
        terms = whole(step, batch)
        if batch.step in bad:
            for p in step._wrapped.network.parameters():
                p.grad.mul_(float("nan"))
            terms = {name: term * float("nan") for name, term in terms.items()}
        return terms

    monkeypatch.setattr(Step, "gradients", spoilt)
    recipe = recipe_of({**CLIP, "skip_bad_steps": 2, "checkpoint_every_s": 0})
    report = run(tmp_path / "two", recipe, tiny_model(tmp_path), parts, 84)
    assert (report.skipped_steps, report.steps) == (2, 7)
    assert ["loss" in line for line in log(tmp_path / "two")] == [True, False, True, True]
    bad |= {4}
    with pytest.raises(DataError, match="3 steps in a row, up to step 5, had no finite gradient"):
        run(tmp_path / "three", recipe, tiny_model(tmp_path), parts, 84)
    with pytest.raises(DataError, match="3 steps in a row, up to step 5"):  # a resumed training has not forgotten
        run(tmp_path / "three", recipe, tiny_model(tmp_path), parts, 84)
    with pytest.raises(DataError, match="the loss is nan at step 3 of 7"):
        run(tmp_path / "none", recipe.model_copy(update={"skip_bad_steps": 0}), tiny_model(tmp_path), parts, 84)


def test_the_record_of_losses():
    record = LossRecord(4, torch.device("cpu"), ALONE)
    one, other = {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, {"a": torch.tensor(4.0), "b": torch.tensor(1.0)}
    record.add(one)
    record.leave_out({name: term * float("nan") for name, term in one.items()})
    names, rows = record.saved(2, 9)
    again = LossRecord(4, torch.device("cpu"), ALONE)
    again.restore(names, rows)
    for some in (record, again):
        some.add(other)
        assert some.flush(3, 9) == {"loss": 4.0, "loss/a": 2.5, "loss/b": 1.5}
        some.leave_out(one)
        assert some.flush(4, 9) == {}
        some.add({"a": torch.tensor(1.0), "b": torch.tensor(float("inf"))})
        with pytest.raises(DataError, match="the loss is inf at step 5 of 9"):
            some.flush(5, 9)
