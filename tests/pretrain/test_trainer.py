import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import DataError
from curate.pretrain.data.dataset import SubsetDataset
from curate.pretrain.recipe import ClipRecipe
from curate.pretrain.state.checkpoint import SpoiltState
from curate.pretrain.trainer import train

RECIPE = ClipRecipe(batch_size=16, lr=2e-3, warmup=4, log_every=3, checkpoint_every_s=0)
SEEN = 16 * 8 + 3


class Killed(Exception):
    pass


def run(folder: Path, squares, recipe=RECIPE, model="RN-mini-32", seen=SEEN, seed=0, stop_after=None, **options):
    def progress(done: int, total: int) -> None:
        assert total == seen
        if stop_after is not None and done >= stop_after:
            raise Killed

    dataset = SubsetDataset(squares)
    out, scratch = str(folder / "out"), str(folder / "scratch")
    return train(
        recipe, model, dataset, seen, seed, out, scratch, progress=progress, progress_every_s=0, device="cpu", **options
    )


def digests(folder: Path) -> dict[str, str]:
    """Of every file of the encoder folder; TensorBoard's too, since they hold no clock time."""
    files = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, squares):
    folder = tmp_path_factory.mktemp("undisturbed")
    return run(folder, squares).to_json(), digests(folder)


@settings(max_examples=4, deadline=None)
@given(kills=st.lists(st.integers(1, SEEN - 1), min_size=1, max_size=3))
def test_killed_and_resumed_gives_the_same_bytes(tmp_path_factory, squares, undisturbed, kills):
    folder = tmp_path_factory.mktemp("killed")
    for samples in sorted(kills):
        with pytest.raises(Killed):
            run(folder, squares, stop_after=samples)
    assert not (folder / "out").exists()
    assert run(folder, squares).to_json() == undisturbed[0]
    assert digests(folder) == undisturbed[1]


def test_saving_seldom_costs_steps_but_changes_nothing(tmp_path, squares, undisturbed):
    recipe = RECIPE.model_copy(update={"checkpoint_every_s": 3600.0, "cache_mb": 0})
    with pytest.raises(Killed):
        run(tmp_path, squares, recipe, stop_after=64)
    assert not list((tmp_path / "scratch").glob("state_*"))
    run(tmp_path, squares, recipe)
    weights = "out/open_clip_model.safetensors"
    assert digests(tmp_path)[weights] == undisturbed[1][weights]


def test_stochastic_models_resume_too(tmp_path, squares):
    """Patch dropout draws from torch's generator, which is seeded by the step."""
    config = tmp_path / "dropping.json"
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1, "patch_dropout": 0.5}
    text = {"context_length": 16, "vocab_size": 512, "width": 32, "heads": 2, "layers": 1}
    config.write_text(json.dumps({"tokenizer": "words", "embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    results = []
    for name, kills in (("a", []), ("b", [50, 90])):
        for samples in kills:
            with pytest.raises(Killed):
                run(tmp_path / name, squares, model=str(config), stop_after=samples)
        run(tmp_path / name, squares, model=str(config))
        results.append(digests(tmp_path / name))
    assert results[0] == results[1]


@pytest.mark.parametrize(("seen", "steps"), [(1, 1), (16, 1), (17, 2), (47, 3)])
def test_samples_seen_is_exact(tmp_path, squares, seen, steps):
    report = run(tmp_path, squares, seen=seen)
    assert (report.samples_seen, report.steps) == (seen, steps)
    lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert (lines[-1]["samples_seen"], lines[-1]["step"]) == (seen, steps)


def test_log_and_record(tmp_path, squares):
    report = run(tmp_path, squares)
    lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 9]
    assert [line["samples_seen"] for line in lines] == [48, 96, SEEN]
    assert lines[0]["lr"] == pytest.approx(2e-3 * 3 / 4)
    assert all(set(line) == {"step", "samples_seen", "loss", "lr", "logit_scale"} for line in lines)
    record = json.loads((tmp_path / "out/encoder.json").read_text())
    assert record["tokenizer"] == "words"
    assert record["training"] == {"recipe": RECIPE.described(), **report.to_json()}
    checkpoint = torch.load(tmp_path / "out/checkpoints/epoch_latest.pt", weights_only=True)
    assert (checkpoint["name"], checkpoint["samples_seen"]) == ("RN-mini-32", SEEN)
    assert {"epoch", "state_dict", "optimizer"} <= set(checkpoint)


def test_tensorboard_reads_the_curves(tmp_path, squares):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, squares)
    events = EventAccumulator(str(tmp_path / "out/tensorboard")).Reload()
    lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    for key in ("loss", "lr", "logit_scale", "samples_seen"):
        found = events.Scalars(f"train/{key}")
        assert [scalar.step for scalar in found] == [line["step"] for line in lines]
        assert [scalar.value for scalar in found] == pytest.approx([line[key] for line in lines])


def test_seeds_give_other_models(tmp_path, squares, undisturbed):
    run(tmp_path, squares, seed=1)
    weights = "out/open_clip_model.safetensors"
    assert digests(tmp_path)[weights] != undisturbed[1][weights]


def test_torch_is_left_as_it_was(tmp_path, squares):
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    with pytest.raises(Killed):
        run(tmp_path, squares, threads=threads + 1, stop_after=20)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_loss_that_explodes_names_its_step(tmp_path, squares):
    recipe = ClipRecipe(batch_size=16, lr=1e30, warmup=0, log_every=4)
    with pytest.raises(DataError, match=r"the loss is (nan|inf) at step 2 of 9"):
        run(tmp_path, squares, recipe)
    assert not (tmp_path / "out").exists()


def test_scratch_of_another_training_is_refused(tmp_path, squares):
    with pytest.raises(Killed):
        run(tmp_path, squares, stop_after=40)
    with pytest.raises(DataError, match="belongs to another training"):
        run(tmp_path, squares, seed=9)
    states = sorted((tmp_path / "scratch").glob("state_*.pt"))
    assert len(states) == 2
    for state in states:
        state.write_bytes(state.read_bytes()[:1000])
    with pytest.warns(SpoiltState), pytest.raises(DataError, match="none of the training states"):
        run(tmp_path, squares)


def test_a_spoilt_state_costs_only_its_steps(tmp_path, squares, undisturbed):
    with pytest.raises(Killed):
        run(tmp_path, squares, stop_after=40)
    newest = sorted((tmp_path / "scratch").glob("state_*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:-7])
    with pytest.warns(SpoiltState):
        assert run(tmp_path, squares).to_json() == undisturbed[0]
    assert digests(tmp_path) == undisturbed[1]


def test_gradient_clipping_changes_the_training(tmp_path, squares, undisturbed):
    run(tmp_path, squares, RECIPE.model_copy(update={"grad_clip": 0.01}))
    weights = "out/open_clip_model.safetensors"
    assert digests(tmp_path)[weights] != undisturbed[1][weights]


def test_corrupt_images_are_reported_across_a_kill(tmp_path, make_shard):
    write_shard, good_rows = make_shard
    rows = good_rows(24, 0)
    for i in (3, 8):
        rows[i] = (rows[i][0][:60], rows[i][1], "success")
    rows[5] = (rows[5][0], None, "success")
    shards = [write_shard(tmp_path, "00000000", rows)]
    with pytest.raises(Killed):
        run(tmp_path, shards, seen=69, stop_after=40)
    report = run(tmp_path, shards, seen=69)
    assert (report.samples, report.distinct, report.epochs, report.without_caption) == (23, 23, 3.0, 1)
    assert (report.corrupt, report.replaced) == (2, 6)


def test_learning_works(trained, encoder, colour_test):
    """Zero-shot colour naming on unseen squares, after a few seconds."""
    images, labels, prompts = colour_test
    predicted = (encoder.encode_images(images) @ encoder.encode_texts(prompts).T).argmax(1)
    assert (predicted == labels).mean() > 0.95
    assert trained[1].loss < 0.8 * np.log(48)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_learns_too(tmp_path, squares, colour_test, precision):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    from curate.pretrain.encoders.load_encoder import load_encoder

    recipe = ClipRecipe(batch_size=48, lr=3e-3, warmup=10, precision=precision)
    out = str(tmp_path / "out")
    train(recipe, "RN-mini-32", SubsetDataset(squares), 48 * 60, 0, out, str(tmp_path / "scratch"), device="cuda")
    images, labels, prompts = colour_test
    on_gpu, on_cpu = load_encoder(out, device="cuda"), load_encoder(out, device="cpu")
    predicted = (on_gpu.encode_images(images) @ on_gpu.encode_texts(prompts).T).argmax(1)
    assert (predicted == labels).mean() > 0.95
    assert np.abs(on_gpu.encode_images(images) - on_cpu.encode_images(images)).max() < 1e-2
