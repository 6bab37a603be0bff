import pytest
from pydantic import ValidationError

from curate.pretrain.datacomp_scales import SCALES, DataCompRecipe, budget_sentence, original_run
from curate.pretrain.recipe import RECIPES


@pytest.mark.parametrize(
    ("scale", "model", "samples", "batch", "lr", "warmup", "beta2", "steps"),
    [
        ("debug", "ViT-B-32", 128_000, 1024, 1e-4, 500, 0.98, 125),
        ("small", "ViT-B-32", 12_800_000, 4096, 5e-4, 500, 0.98, 3125),
        ("medium", "ViT-B-32", 128_000_000, 4096, 5e-4, 500, 0.98, 31_250),
        ("large", "ViT-B-16", 1_280_000_000, 8192, 5e-4, 500, 0.98, 156_250),
        ("xlarge", "ViT-L-14", 12_800_000_000, 90_112, 1e-3, 10_000, 0.95, 142_046),  # the last step is a small one
    ],
)
def test_a_scale_is_a_recipe(scale, model, samples, batch, lr, warmup, beta2, steps):
    recipe = RECIPES["datacomp"].model_validate({"scale": scale})
    assert isinstance(recipe, DataCompRecipe)
    assert (recipe.model, recipe.samples_seen, recipe.batch_size) == (model, samples, batch)
    assert (recipe.lr, recipe.warmup, recipe.weight_decay, recipe.schedule.floor) == (lr, warmup, 0.2, 0)
    assert (recipe.optimizer.beta1, recipe.optimizer.beta2, recipe.optimizer.eps) == (0.9, beta2, 1e-6)
    assert (recipe.crop_scale, recipe.grad_clip, recipe.grad_checkpointing) == ((0.9, 1.0), 0, True)
    assert SCALES[scale].steps == steps
    assert DataCompRecipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_what_is_named_beside_the_scale_wins():
    recipe = DataCompRecipe.model_validate(
        {"scale": "debug", "batch_size": 64, "model": "RN-mini-32", "precision": "fp32"}
    )
    assert (recipe.batch_size, recipe.model, recipe.lr, recipe.precision) == (64, "RN-mini-32", 1e-4, "fp32")
    assert DataCompRecipe() == DataCompRecipe(scale="small")
    with pytest.raises(ValidationError, match="'debug', 'small', 'medium', 'large' or 'xlarge'"):
        DataCompRecipe.model_validate({"scale": "smal"})


@pytest.mark.parametrize(
    ("arguments", "steps", "batch"),
    [
        ({"checkpoints": 1}, 3128, 4096),
        ({}, 3140, 4096),
        ({"checkpoints": 8}, 3136, 4096),
        ({"checkpoints": 20}, 3200, 4096),
        ({"checkpoints": 100}, 3200, 4096),
        ({"gpus": 8, "workers": 8}, 3160, 4096),
        ({"gpus": 3}, 3140, 4095),
        ({"gpus": 6}, 3140, 4092),
    ],
)
def test_what_the_original_code_does_instead(arguments, steps, batch):
    theirs = original_run("small", **arguments)
    assert (theirs.steps, theirs.batch_size, theirs.samples_seen) == (steps, batch, steps * batch)


def test_the_budget_is_told_in_one_sentence():
    said = budget_sentence("small")
    assert "exactly 12,800,000 samples in 3,125 steps" in said
    assert "12,861,440 (+0.5 %) in 3,140 steps" in said
