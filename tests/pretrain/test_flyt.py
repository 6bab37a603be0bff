"""Learning sample weights: batches keep pair and scores together, and a killed training ends at the same bits."""

import functools
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from curate.errors import DataError
from curate.pretrain.data.tokenizer import WordTokenizer
from curate.pretrain.weighing.flyt import Linear, ScoringHead, make_head, train_scorer
from curate.pretrain.weighing.flyt_data import Labelled, Pairs, draw_rows
from curate.pretrain.weighing.flyt_options import FlytTraining
from curate.shards.evalsets.write import write_evalset

COLOURS = ("red", "green", "blue", "yellow")
VALUES = ((220, 40, 40), (40, 180, 60), (50, 70, 220), (230, 210, 50))
TEMPLATES = ("a photo of a {c} square", "this is {c}", "{c}")


def flat(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), colour, np.uint8)).save(file, "PNG")
    return file.getvalue()


def place_scores(shard: int, rows: np.ndarray) -> np.ndarray:
    """What the tests' weights are made of: where the row is."""
    return np.stack([np.full(len(rows), shard), rows], 1).astype(np.float32)


@pytest.fixture
def awkward(make_shard, tmp_path):
    """Shards whose pictures and captions say where they are, with every kind of row that is no pair; 21 are pairs."""
    write_shard, _ = make_shard
    shards = []
    for s, count in enumerate([12, 3, 15]):
        rows = []
        for i in range(count):
            body, caption, status = flat((40 * s, 8 * i, 99)), f"shard {s} row {i}", "success"
            if i % 5 == 1:
                caption = None
            if i % 5 == 3:
                body, status = None, "failed_to_download"
            if s == 1:
                body, status = None, "failed_to_download"
            if (s, i) == (2, 4):
                body = b"\x89PNG not a picture"
            rows.append((body, caption, status))
        shards.append(write_shard(tmp_path / "awkward", f"{s:08d}", rows))
    return shards


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("judge") / "colours")
    rng = np.random.default_rng(5)
    samples = []
    for i in range(40):
        shade = np.clip(np.array(VALUES[i % 4]) + rng.integers(-20, 20, 3), 0, 255)
        samples.append((flat((int(shade[0]), int(shade[1]), int(shade[2]))), i % 4))
    write_evalset(folder, COLOURS, TEMPLATES, {"train": samples})
    return folder


def open_pairs(shards, scratch, steps=9, batch=8, seed=3):
    tokenizer = WordTokenizer(12, 8192)
    return Pairs(shards, place_scores, tokenizer, (32, 32), batch, steps, seed, (0.9, 1.0), 16, str(scratch))


def says_where(batch) -> list[tuple[int, int]]:
    """Place of each sample, read off its picture."""
    corners = batch.pairs.images[:, 5, 5]
    assert (np.abs(corners[:, 2].astype(int) - 99) <= 1).all()
    return [(round(r / 40), round(g / 8)) for r, g, _ in corners.tolist()]


def test_scores_stay_with_their_pair(awkward, tmp_path):
    """Rows without caption, failed rows, an empty shard and a corrupt picture do not shift anything."""
    pairs = open_pairs(awkward, tmp_path / "s")
    tokenizer, seen = WordTokenizer(12, 8192), set()
    for step in range(9):
        batch = pairs.batch(step)
        places = says_where(batch)
        assert [tuple(row) for row in batch.inputs.astype(int).tolist()] == places
        captions = tokenizer([f"shard {s} row {i}" for s, i in places])
        np.testing.assert_array_equal(batch.pairs.tokens[batch.pairs.caption], captions)
        seen |= set(places)
    valid = {(s, i) for s, n in ((0, 12), (2, 15)) for i in range(n) if i % 5 not in (1, 3)}
    assert seen == valid - {(2, 4)}
    assert pairs.samples == len(valid)
    assert len(pairs.corrupt) == 1
    again = open_pairs(awkward, tmp_path / "other").batch(4)
    np.testing.assert_array_equal(again.inputs, open_pairs(awkward, tmp_path / "s").batch(4).inputs)


def test_only_as_many_rows_are_opened_as_are_seen(awkward, tmp_path):
    valid = [[i for i in range(n) if i % 5 not in (1, 3)] if n else [] for n in (12, 0, 15)]
    everything = draw_rows(awkward, 1000, 0)
    assert [rows.tolist() for rows in everything] == valid
    some = draw_rows(awkward, 6, 0)
    assert sum(map(len, some)) == 6
    assert all(set(rows.tolist()) <= set(all_) for rows, all_ in zip(some, valid, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(some, draw_rows(awkward, 6, 1), strict=True))
    assert open_pairs(awkward, tmp_path, steps=1, batch=6).samples == 6


def test_a_pool_without_pairs_is_refused(make_shard, tmp_path):
    shard = make_shard[0](tmp_path, "00000000", [(flat((1, 2, 3)), None, "success"), (None, "x", "failed_to_download")])
    with pytest.raises(DataError, match="holds a pair"):
        draw_rows([shard], 5, 0)


def test_labelled_batches_are_functions_of_the_step(judge):
    def open_labelled(seed):
        return Labelled(judge, "train", WordTokenizer(12, 8192), (32, 32), 16, seed, (0.9, 1.0), 16)

    one, other = open_labelled(0), open_labelled(0)
    one.batch(0)
    a, b = one.batch(3), other.batch(3)
    for name in ("images", "labels", "prompts"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (np.abs(a.images[:, 9, 9].astype(int) - np.array(VALUES)[a.labels]).max(1) <= 21).all()
    tokenizer = WordTokenizer(12, 8192)
    possible = [{tuple(row) for row in tokenizer([t.replace("{c}", c) for t in TEMPLATES]).tolist()} for c in COLOURS]
    drawn = [[tuple(row) for row in one.batch(step).prompts.tolist()] for step in range(12)]
    assert all(prompt in can for prompts in drawn for prompt, can in zip(prompts, possible, strict=True))
    assert len({prompts[0] for prompts in drawn}) == len(TEMPLATES)
    assert one.identity == open_labelled(1).identity


def test_a_labelled_image_that_cannot_be_decoded_is_an_error(tmp_path):
    write_evalset(str(tmp_path), ["a"], ["{c}"], {"train": [(b"\x89PNG\r\n\x1a\n broken", 0)]})
    labelled = Labelled(str(tmp_path), "train", WordTokenizer(12, 8192), (32, 32), 2, 0, (0.9, 1.0), 16)
    with pytest.raises(DataError, match="sample s0000000 of split 'train'"):
        labelled.batch(0)


def good_or_bad(shard: int, rows: np.ndarray) -> np.ndarray:
    """Two columns: whether the row is in the first shard, and something that says nothing."""
    noise = np.random.default_rng(shard).standard_normal(1000)[rows]
    return np.stack([np.full(len(rows), 1.0 if shard == 0 else -1.0), noise], 1).astype(np.float32)


@pytest.fixture(scope="module")
def colours(make_shard, tmp_path_factory):
    """A shard of true pairs, and one whose captions name the next colour."""
    write_shard, _ = make_shard
    folder, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    shards = []
    for s in range(2):
        rows = []
        for i in range(160):
            shade = np.clip(np.array(VALUES[i % 4]) + rng.integers(-20, 20, 3), 0, 255).tolist()
            caption = TEMPLATES[rng.integers(3)].replace("{c}", COLOURS[(i + s) % 4])
            rows.append((flat((shade[0], shade[1], shade[2])), caption, "success"))
        shards.append(write_shard(folder, f"{s:08d}", rows))
    return shards


def options(**other) -> FlytTraining:
    small = {"downstream": "-", "model": "RN-mini-32", "steps": 30, "batch_size": 32, "downstream_batch": 32}
    rates = {"lr": 0.05, "lr_reference": 2e-3, "warmup": 2, "log_every": 5}
    return FlytTraining.model_validate({**small, **rates, **other})


class Killed(Exception):
    pass


def run(chosen, shards, judge, scratch: Path, kill_at=None, make=Linear, read=good_or_bad, seed=0, inputs=""):
    def progress(done, total):
        assert total == chosen.steps
        if done == kill_at:
            raise Killed

    return train_scorer(chosen, shards, read, judge, make, seed, str(scratch), inputs, device="cpu", progress=progress)


def test_true_pairs_gain_weight(colours, judge, trained, tmp_path):
    report = run(options(steps=15, pretrained=trained[0], batch_size=96, downstream_batch=80), colours, judge, tmp_path)
    good, noise = report.scorer["weight"].tolist()
    assert good > 0.2
    assert good > 1.3 * abs(noise)
    assert [point["step"] for point in report.curve] == [5, 10, 15]
    assert (report.steps, report.samples, report.corrupt, report.replaced) == (15, 320, 0, 0)


@pytest.mark.parametrize("model", ["RN-mini-32", "ViT-mini-8-32"])
def test_a_killed_training_ends_at_the_same_bits(colours, judge, tmp_path, model):
    chosen = options(steps=4, checkpoint_every_s=0, model=model, micro_batch=20, log_every=2)
    whole = run(chosen, colours, judge, tmp_path / "whole")
    for kill_at in (1, 3):
        with pytest.raises(Killed):
            run(chosen, colours, judge, tmp_path / "killed", kill_at)
    resumed = run(chosen, colours, judge, tmp_path / "killed")
    assert resumed.curve == whole.curve
    assert resumed.scorer["weight"].tobytes() == whole.scorer["weight"].tobytes()
    with pytest.raises(DataError, match="another training"):
        run(chosen, colours, judge, tmp_path / "killed", inputs="other scores")


def test_seeds_differ_and_global_randomness_is_left_alone(colours, judge, tmp_path):
    before = torch.get_rng_state()
    runs = [run(options(steps=2), colours, judge, tmp_path / str(s), seed=s).scorer["weight"] for s in range(2)]
    assert not np.array_equal(*runs)
    assert torch.equal(before, torch.get_rng_state())


def test_micro_batches_change_rounding_only(colours, judge, tmp_path):
    """Without batch norms; the first steps of AdamW magnify it. (Exactly so in `test_flyt_second_order`.)"""
    runs = [
        run(options(steps=2, model="ViT-mini-8-32", micro_batch=m), colours, judge, tmp_path / str(m)) for m in (9, 64)
    ]
    np.testing.assert_allclose(runs[0].scorer["weight"], runs[1].scorer["weight"], rtol=1e-2)


@pytest.mark.parametrize("other", [{"update_reference": False}, {"downstream_scale": "model"}])
def test_other_ways_run(colours, judge, tmp_path, other):
    report = run(options(steps=2, **other), colours, judge, tmp_path)
    assert np.isfinite(report.scorer["weight"]).all()
    assert report.scorer["weight"].any()


def test_a_head_learns_from_embeddings(colours, judge, tmp_path):
    make = functools.partial(make_head, 0, 8)
    report = run(options(steps=2, checkpoint_every_s=0), colours, judge, tmp_path, make=make)
    first = make(2)
    assert not np.array_equal(report.scorer["w1.weight"], first.w1.weight.detach().numpy())
    assert {name: value.shape for name, value in report.scorer.items()} == {
        "w1.weight": (8, 2),
        "w3.weight": (8, 2),
        "w2.weight": (1, 8),
        "w2.bias": (1,),
    }
    assert torch.equal(first.w1.weight, make(2).w1.weight)
    assert make_head(0, 0, 6).w1.weight.shape == (6, 6)


def test_the_head_by_hand():
    head = ScoringHead(2, 1)
    with torch.no_grad():
        for p, value in ((head.w1.weight, [[1.0, 0]]), (head.w3.weight, [[0, 2.0]]), (head.w2.weight, [[3.0]])):
            p.copy_(torch.tensor(value))
        head.w2.bias.fill_(0.5)
    gate = 2 / (1 + np.exp(-2.0))
    assert head(torch.tensor([[2.0, 5.0]])).tolist()[0] == pytest.approx(3 * gate * 10 + 0.5, rel=1e-6)


def test_a_loss_that_explodes_is_an_error(colours, judge, tmp_path):
    with pytest.raises(DataError, match="stopped being finite by step"):
        run(options(steps=5, log_every=1, lr_reference=1e30, warmup=0), colours, judge, tmp_path)


def test_options_need_one_reference():
    for wrong in ({}, {"model": "RN-mini-32", "encoder": "e"}, {"encoder": "e", "pretrained": "p"}):
        with pytest.raises(ValidationError):
            FlytTraining.model_validate({"downstream": "d", **wrong})
    assert options().reference_files() == []
    assert FlytTraining(downstream="d", encoder="clip", model=None).reference_encoders() == ["clip"]


def test_it_starts_from_weights(colours, judge, tmp_path, trained):
    """From a checkpoint, and from an encoder of the run: the same start gives the same steps."""
    from curate.pretrain.encoders.load_encoder import load_encoder

    folder = trained[0]
    chosen = options(steps=2, log_every=1, pretrained=folder)
    assert chosen.reference_files() == [f"{folder}/open_clip_model.safetensors"]
    one = run(chosen, colours, judge, tmp_path / "one")
    encoder = load_encoder(folder, device="cpu")
    other = train_scorer(
        options(steps=2, log_every=1, model=None, encoder="e"),
        colours, good_or_bad, judge, Linear, 0, str(tmp_path / "two"), encoder=encoder, device="cpu",
    )  # fmt: skip
    assert one.curve == other.curve
    assert (
        one.curve[0]["downstream_loss"]
        != run(options(steps=2, log_every=1), colours, judge, tmp_path / "three").curve[0]["downstream_loss"]
    )
    assert not any(p.requires_grad for p in encoder.model.parameters())
