"""What a finished training leaves: files that open_clip reads, metrics that are open_clip's, and honest words."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from curate.errors import DataError
from curate.pretrain.models.architecture import build, resolve_model
from curate.pretrain.models.encoder_folder import find_encoder
from curate.pretrain.outputs.export import Finished, checkpoint_value, publish, validation_line, write_params
from curate.pretrain.outputs.model_card import CardFacts, code, model_card
from curate.pretrain.outputs.retrieval import contrastive_loss, partner_ranks, retrieval_metrics
from curate.pretrain.state.snapshots import SnapshotOptions, Snapshots, snapshot_name

HOSTILE = "a`b``c | <script>alert(1)</script>\n# heading\u202e\x00 [x](javascript:y)"
CONFIG = {
    "tokenizer": "words",
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 1},
    "text_cfg": {"context_length": 12, "vocab_size": 512, "width": 32, "heads": 2, "layers": 1},
}
LOG = [{"step": 2, "samples_seen": 8, "loss": 1.5, "lr": 0.1}, {"step": 4, "samples_seen": 16, "loss": 1.25, "lr": 0.0}]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model") / "little.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


def named(weights: dict, **more: torch.Tensor) -> dict:
    """By the names that weights have in a `PairNetwork`."""
    return {f"towers.model.{name}": tensor for name, tensor in weights.items()} | more


def finished(config: str, **options) -> Finished:
    spec = resolve_model(config)
    model = build(spec, 0)
    optimizer = torch.optim.AdamW(model.parameters())
    model.encode_image(torch.ones(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    record = {"recipe": {"type": "clip", "optimizer": {"lr": 0.1}}, "samples": 12, "epochs": 16 / 12, "seed": 3}
    values = {"optimizer": optimizer.state_dict(), "log": LOG, "weights": named(model.state_dict())} | options
    assembly = SimpleNamespace(name=spec.short_name, spec=spec, network=None, classes=None)
    return Finished(assembly, record=record, epoch=1, step=4, samples_seen=16, **values)


def test_open_clip_loads_folder_and_checkpoint(config, tmp_path):
    done = finished(config)
    publish(str(tmp_path / "model"), done)
    checkpoint = tmp_path / "model" / "checkpoints" / "epoch_latest.pt"
    value = torch.load(checkpoint, weights_only=True)
    assert list(value) == ["epoch", "global_step", "samples_seen", "name", "state_dict", "optimizer"]
    plain = tmp_path / "architecture" / "little.json"  # as open_clip wants it: without our keys
    plain.parent.mkdir()
    plain.write_text(json.dumps({k: v for k, v in CONFIG.items() if k != "tokenizer"}))
    open_clip.add_model_config(plain)
    by_name = open_clip.create_model("little", pretrained=str(checkpoint))
    by_folder = open_clip.create_model(f"local-dir:{tmp_path / 'model'}")
    for model in (by_name, by_folder):
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, done.weights[f"towers.model.{name}"]), name
    assert find_encoder(str(tmp_path / "model")).spec.config["embed_dim"] == 16
    assert json.loads((tmp_path / "model" / "encoder.json").read_text())["training"]["seed"] == 3


def test_same_training_same_bytes(config, tmp_path):
    for name in ("a", "b"):
        publish(str(tmp_path / name), finished(config, validation=[{"step": 4, "clip_val_loss": 1.0}]))
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*") if p.is_file()) for n in "ab"]
    assert files[0] == files[1]
    assert {str(p) for p in files[0]} >= {"README.md", "params.txt", "checkpoints/results.jsonl", "log.jsonl"}
    for file in files[0]:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_the_average_is_the_model_and_the_trained_weights_lie_beside(config, tmp_path):
    done = finished(config)
    done = finished(config, weights={**done.weights, "head.linear.weight": torch.ones(3, 16)})
    trained = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in done.weights.items()}
    publish(str(tmp_path), Finished(**{**vars(done), "trained": trained}))
    value = torch.load(tmp_path / "checkpoints" / "epoch_latest.pt", weights_only=True)
    exported = load_file(tmp_path / "open_clip_model.safetensors")
    assert exported.keys() == value["state_dict"].keys() == value["state_dict_trained"].keys()
    for name, tensor in exported.items():
        assert torch.equal(tensor, done.weights[f"towers.model.{name}"])
        assert torch.equal(tensor, value["state_dict"][name])
        assert torch.equal(value["state_dict_trained"][name], trained[f"towers.model.{name}"])
    assert load_file(tmp_path / "heads.safetensors")["head.linear.weight"].shape == (3, 16)
    assert json.loads((tmp_path / "encoder.json").read_text())["training"]["weights"] == "average"
    assert "moving average" in (tmp_path / "README.md").read_text()


def test_tied_weights_are_written_twice(config, tmp_path):
    done = finished(config)
    tied = dict(done.weights)
    tied["towers.model.again"] = tied["towers.model.logit_scale"]
    publish(str(tmp_path), Finished(**{**vars(done), "weights": tied}))
    assert "again" in load_file(tmp_path / "open_clip_model.safetensors")


def test_params_are_sorted_lines(tmp_path):
    write_params(str(tmp_path), {"seed": 1, "recipe": {"lr": 0.5, "betas": (0.9, 0.98)}, "name": HOSTILE, "ema": {}})
    lines = (tmp_path / "params.txt").read_text().splitlines()
    assert lines == sorted(lines)
    assert lines[0] == "ema: {}"
    assert "recipe.betas: [0.9, 0.98]" in lines
    assert "recipe.lr: 0.5" in lines
    assert len(lines) == 5


@st.composite
def pairs(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    n, seed = draw(st.integers(1, 30)), draw(st.integers(0, 9))
    rng = np.random.default_rng(seed)
    image, text = rng.normal(size=(2, n, 4))
    text += draw(st.sampled_from([0.0, 1.0, 4.0])) * image
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (image, text)]
    return torch.tensor(unit[0], dtype=torch.float32), torch.tensor(unit[1], dtype=torch.float32)


@settings(max_examples=40, deadline=None)
@given(features=pairs(), chunk=st.integers(1, 12))
def test_retrieval_is_open_clips(features, chunk):
    from open_clip_train.train import get_clip_metrics

    image, text = features
    expected = get_clip_metrics(image, text, torch.tensor(10.0))
    got = retrieval_metrics(image, text, chunk)
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert got[name] == pytest.approx(float(value)), name


@given(batch=st.integers(1, 40), features=pairs())
@settings(max_examples=20, deadline=None)
def test_validation_loss_is_open_clips(batch, features):
    image, text = features
    total = 0.0
    for i in range(0, len(image), batch):
        part = open_clip.ClipLoss()(image[i : i + batch], text[i : i + batch], torch.tensor(7.0))
        total += part.item() * len(image[i : i + batch])
    assert contrastive_loss(image, text, 7.0, batch) == pytest.approx(total / len(image), abs=1e-6)


def test_equal_similarities_rank_by_place_and_broken_features_are_no_result():
    same = torch.ones(4, 2) / 2**0.5
    assert partner_ranks(same, same, 3).tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="finite"):
        retrieval_metrics(same * float("nan"), same)
    line = validation_line(same, same, 1.0, 2, epoch=2, step=9, samples_seen=72)
    assert line["clip_val_loss"] == pytest.approx(np.log(2))
    assert (line["image_to_text_R@1"], line["image_to_text_mean_rank"], line["num_samples"]) == (0.25, 2.5, 4)


@given(text=st.text())
def test_code_spans_cannot_be_left(text):
    span = code(text)
    fence = re.match("`+", span)
    assert fence is not None
    inside = span[len(fence[0]) : -len(fence[0])]
    assert span.endswith(fence[0])
    assert fence[0] not in re.findall("`+", inside)
    assert "\n" not in span
    assert not re.search(r"(?<!\\)\|", inside)


def test_card_says_what_is_known_and_nothing_is_interpreted():
    record = {"recipe": {"type": HOSTILE}, "samples": 1200, "samples_seen": 2400, "epochs": 2.0, "seed": 0}
    card = model_card(HOSTILE, record, CardFacts(HOSTILE, "abc", "mit\nevil: yes"), LOG)
    assert "\n# heading" not in card
    assert 'license: "mit evil: yes"' in card
    assert "\u202e" not in card
    assert "| samples seen | 2,400 |" in card
    assert "| 16 | 1.2500 |" in card
    assert card.count("<script>") == card.count("```a`b``c")  # only inside code spans
    assert "license" not in model_card("x", record, CardFacts())


def weights_at(samples: int) -> dict:
    return checkpoint_value("little", 0, samples // 4, samples, {"w": torch.full((3,), float(samples))})


def way(scratch: Path, options: SnapshotOptions, begin: int, end: int, made: list[int], lines: list[dict]) -> None:
    """Steps of 4 samples, as a trainer would make them."""
    snapshots = Snapshots(str(scratch), options, 40)
    for before in range(begin, end, 4):
        if snapshots.due(before, before + 4):
            made.append(before + 4)
            lines.append({"samples_seen": before + 4, "clip_val_loss": abs(before + 4 - 20) / 7})
            snapshots.write(weights_at(before + 4), made, lines)


@settings(max_examples=25, deadline=None)
@given(
    every=st.integers(1, 17),
    keep=st.integers(0, 3),
    best=st.booleans(),
    saved=st.integers(0, 9),
    killed=st.integers(0, 9),
)
def test_snapshots_of_a_killed_training_are_the_undisturbed_ones(tmp_path_factory, every, keep, best, saved, killed):
    folder, options = tmp_path_factory.mktemp("way"), SnapshotOptions(every=every, keep=keep, best=best)
    made: list[int] = []
    lines: list[dict] = []
    way(folder / "a", options, 0, 40, made, lines)
    names = Snapshots(str(folder / "a"), options, 40).publish(str(folder / "out-a"), made, lines)
    again: list[int] = []
    told: list[dict] = []
    saved, killed = min(saved, killed), max(saved, killed)
    way(folder / "b", options, 0, 4 * saved, again, told)
    way(folder / "b", options, 4 * saved, 4 * killed, list(again), list(told))  # these steps are lost
    way(folder / "b", options, 4 * saved, 40, again, told)
    assert Snapshots(str(folder / "b"), options, 40).publish(str(folder / "out-b"), again, told) == names
    files = [{p.name: p.read_bytes() for p in (folder / o / "checkpoints").iterdir()} for o in ("out-a", "out-b")]
    assert files[0] == files[1]
    assert {p.name for p in (folder / "b" / "snapshots").iterdir()} == set(names)
    assert snapshot_name(40) in names
    if best:
        record = json.loads(files[0]["best.json"])
        assert record["file"] in names
        assert record["value"] == min(line["clip_val_loss"] for line in lines)


def test_numbers_of_checkpoints():
    assert SnapshotOptions(number=5).targets(12) == [3, 5, 8, 10, 12]
    assert SnapshotOptions(number=20).targets(3) == [1, 2, 3]
    assert SnapshotOptions(every=5).targets(12) == [5, 10, 12]
    assert SnapshotOptions().targets(12) == []
    values = [{"samples_seen": 3, "clip_val_loss": float("nan")}, {"samples_seen": 5, "clip_val_loss": 1.0}]
    snapshots = Snapshots("unused", SnapshotOptions(number=5, keep=1), 12)
    assert snapshots.kept([3, 5, 8], values) == [5, 8]
    assert snapshots.best([3, 5], [{"samples_seen": 4, "clip_val_loss": 0.0}]) is None
