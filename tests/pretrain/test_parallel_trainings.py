"""Whole trainings on 1, 2 and 3 processes: the same weights. Run as a script, this file is one of the processes.

Tolerances are absolute, of float32 weights of order 1 after three steps. SGD's steps are as exact as gradients, whose
sums are added up in another order (seen: 2e-6, with batch norm 5e-6). AdamW divides a gradient by its own size, so
where it is near zero its rounding becomes a step (seen: 8e-5 at a rate of 1e-3).
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from curate.pretrain.processes.world import ALONE, World, joined
from curate.pretrain.recipe import RECIPES, Recipe
from curate.pretrain.stopping import Stopped
from curate.shards.shard import Shard

sys.path.insert(0, str(Path(__file__).parent))
from training_runs import digests, furthest, log, part, run, tiny_model, weights, with_columns

BATCH = 10
SEEN = 2 * BATCH + 2  # three processes share the last batch of two: one has none
SGD = {"optimizer": {"type": "sgd"}, "lr": 0.02, "warmup": 1, "weight_decay": 0.01, "batch_size": BATCH, "log_every": 2}
ADAMW = {**SGD, "optimizer": "adamw", "lr": 1e-3}
LABELS = {"column": "label"}
TOLERANCE = 5e-6
WITH_TWO = ("resnet", "vit", "clip fsdp", "captions and labels")  # processes besides
CLIP, SIGLIP, FSDP = {"type": "clip", **SGD}, {"type": "siglip", **SGD}, {"sharding": "fsdp"}


def cases() -> dict[str, tuple[dict[str, Any], str, dict[str, Any]]]:
    """Name -> (recipe, model, other arguments)."""
    supervised = {"type": "supervised", **SGD, "labels": LABELS, "classifier": {"head_init": "small"}}
    mixed = {"data": "mixed", "measured": True}
    phases = [{"share": 0.6, "patch_keep": 0.5, "image_size": 48, "text_length": 6}, {"share": 0.4}]
    return {
        "resnet": (CLIP, "RN-mini-32", {"seen": 2 * BATCH, "tolerance": 2e-5}),
        "resnet fsdp": ({**CLIP, **FSDP}, "tiny resnet", {"tolerance": 2e-5}),
        "vit": ({**CLIP, "phases": phases}, "ViT-mini-8-32", {}),
        "adamw": ({"type": "clip", **ADAMW}, "tiny", {"tolerance": 2e-4}),
        "clip in pieces": ({**CLIP, "micro_batch": 2, "grad_clip": 0.1, "ema": {"decay": 0.5}}, "tiny", {}),
        "clip groups": ({**CLIP, "groups": 2, "matryoshka": [4]}, "tiny", {}),
        "clip fsdp": (
            {**CLIP, **FSDP, "grad_clip": 0.1, "ema": {"decay": 0.5}, "micro_batch": 2},
            "tiny",
            {"measured": True},
        ),
        "siglip": (SIGLIP, "tiny", {}),
        "siglip ring": ({**SIGLIP, "exchange": "ring", "micro_batch": 3}, "tiny", {}),
        "captions and labels": ({**CLIP, "labels": LABELS, "supcon": {}}, "tiny", mixed),
        "captions and labels in pieces": ({**CLIP, "labels": LABELS, "micro_batch": 2, **FSDP}, "tiny", mixed),
        "labels alone": ({**CLIP, "labels": LABELS, "contrastive_weight": 0.0}, "tiny", {}),
        "locked": ({**CLIP, "lock": {"image": True}, "micro_batch": 2}, "tiny", {}),
        "locked fsdp": ({**CLIP, "lock": {"image": True}, **FSDP}, "tiny", {}),
        "coca": (CLIP, "tiny coca", {}),
        "softmax": (supervised, "tiny resnet", {"tolerance": 2e-5}),
        "softmax in pieces": ({**supervised, "micro_batch": 2, "mix": {"mixup": 0.5}}, "tiny", {}),
        "softmax fsdp": ({**supervised, **FSDP, "supcon": {}}, "tiny", {}),
    }


def train_case(name: str, folder: Path, world: World) -> dict[str, Any]:
    """Weights, log and report of one case."""
    options, model, more = cases()[name]
    shards, models = _data(folder)
    parts = [part(shards["full"])]
    if more.get("data") == "mixed":
        parts = [part(shards["captions"], 2.0), part(shards["labels"])]
    place = folder / str(world.size) / name
    model, seen = models.get(model, model), more.get("seen", SEEN)
    report = run(
        place, _recipe(options), model, parts, seen, world=world, validation=parts[0] if more.get("measured") else None
    )
    world.barrier()
    return {"weights": weights(place), "log": log(place), "report": report.to_json()}


def stop_and_go(folder: Path, world: World, sharding: str) -> None:
    """Two processes: undisturbed; stopped and resumed."""
    shards, models = _data(folder)
    recipe = _recipe({**CLIP, "sharding": sharding, "ema": {"decay": 0.5}, "snapshots": {"number": 2}})
    parts = [part(shards["full"])]
    for name in ("undisturbed", "stopped"):
        place = folder / "stories" / sharding / name
        if name == "stopped":
            with pytest.raises(Stopped):  # one asks, all stop
                run(place, recipe, models["tiny"], parts, SEEN, world=world, stop=lambda: world.rank == 1)
        run(place, recipe, models["tiny"], parts, SEEN, world=world)
        world.barrier()


def leave_for_others(folder: Path, world: World) -> None:
    """A training that is stopped after a step; fewer processes will go on with it."""
    shards, models = _data(folder)
    with pytest.raises(Stopped):
        run(
            folder / "stories/elastic",
            _recipe({**CLIP, "ema": {"decay": 0.5}, "sharding": "fsdp"}),
            models["tiny"],
            [part(shards["full"])],
            SEEN,
            world=world,
            stop=lambda: True,
        )


def _recipe(options: dict[str, Any]) -> Recipe:
    return RECIPES[options["type"]].model_validate(options)


def _data(folder: Path) -> tuple[dict[str, list[Shard]], dict[str, str]]:
    value = json.loads((folder / "data.json").read_text())
    return {name: [Shard(**shard) for shard in some] for name, some in value["shards"].items()}, value["models"]


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    with joined(rank, 3, f"file://{folder}/meet3", timeout_s=120) as world:
        torch.save({name: train_case(name, folder, world) for name in cases()}, folder / f"3_{rank}.pt")
        leave_for_others(folder, world)
    if rank == 2:
        return
    with joined(rank, 2, f"file://{folder}/meet2", timeout_s=120) as world:
        torch.save({name: train_case(name, folder, world) for name in WITH_TWO}, folder / f"2_{rank}.pt")
        stop_and_go(folder, world, "ddp")
        stop_and_go(folder, world, "fsdp")


@pytest.fixture(scope="module")
def together(squares, tmp_path_factory) -> tuple[Path, dict[int, list[dict[str, Any]]]]:
    """The folder of all trainings, and by number of processes what each process has."""
    folder = tmp_path_factory.mktemp("together")
    shards = {
        "full": [with_columns(shard, folder / "full") for shard in squares],
        "captions": [with_columns(shard, folder / "captions", labels=False) for shard in squares],
        "labels": [with_columns(shard, folder / "labels", captions=False) for shard in squares],
    }
    decoder = {"context_length": 16, "vocab_size": 512, "width": 32, "heads": 2, "layers": 1}
    pooled = {"output_tokens": True, "attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}
    models = {
        "tiny": tiny_model(folder),
        "tiny resnet": tiny_model(folder, "resnet", vision={"layers": [1, 1, 1, 1], "width": 16, "patch_size": None}),
        "tiny coca": tiny_model(
            folder, "coca", multimodal_cfg=decoder, text={"embed_cls": True, "output_tokens": True}, vision=pooled
        ),
    }
    described = {name: [asdict(shard) for shard in some] for name, some in shards.items()}
    (folder / "data.json").write_text(json.dumps({"shards": described, "models": models}))
    started = [subprocess.Popen([sys.executable, __file__, str(rank), str(folder)]) for rank in range(3)]
    assert [process.wait(280) for process in started] == [0, 0, 0]
    found = {size: [torch.load(folder / f"{size}_{rank}.pt") for rank in range(size)] for size in (2, 3)}
    return folder, found


@pytest.mark.parametrize("name", cases())
def test_processes_together_train_what_one_does(together, name):
    folder, found = together
    torch_threads = torch.get_num_threads()
    alone = train_case(name, folder, ALONE)
    assert torch.get_num_threads() == torch_threads
    tolerance = cases()[name][2].get("tolerance", TOLERANCE)
    assert alone["report"]["samples_seen"] == cases()[name][2].get("seen", SEEN)
    for some in found.values():
        if name not in some[0]:
            continue
        difference, where = furthest(alone["weights"], some[0][name]["weights"])
        assert difference < tolerance, where
        for ours, theirs in zip(alone["log"], some[0][name]["log"], strict=True):
            assert ours == pytest.approx(theirs, rel=20 * tolerance)
        if alone["report"]["validation"]:
            measured = [one["report"]["validation"]["clip_val_loss"] for one in (alone, some[0][name])]
            assert measured[0] == pytest.approx(measured[1], rel=20 * tolerance)
        assert all(one[name]["report"] == some[0][name]["report"] for one in some)  # all processes say the same


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_stop_together_and_go_on_to_the_same_bytes(together, sharding):
    place = together[0] / "stories" / sharding
    assert digests(place / "stopped") == digests(place / "undisturbed")
    assert len(list((place / "stopped/out/checkpoints").glob("samples_*.pt"))) == 2


def test_one_process_goes_on_where_three_stopped(together):
    folder = together[0]
    shards, models = _data(folder)
    recipe = _recipe({**CLIP, "ema": {"decay": 0.5}, "sharding": "fsdp"})
    assert list((folder / "stories/elastic/scratch").glob("state_*.pt"))
    for name in ("elastic", "alone"):
        run(folder / "stories" / name, recipe, models["tiny"], [part(shards["full"])], SEEN)
    difference, where = furthest(weights(folder / "stories/elastic"), weights(folder / "stories/alone"))
    assert 0 < difference < TOLERANCE, where


if __name__ == "__main__":
    worker(int(sys.argv[1]), Path(sys.argv[2]))
    os._exit(0)  # as our workers do: torch's threads may abort an interpreter that is shutting down
