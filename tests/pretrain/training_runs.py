"""Small trainings on real small data, for several test files: squares with captions, colours, hashtags."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from curate.pretrain.processes.world import ALONE, World
from curate.pretrain.recipe import Recipe
from curate.pretrain.trainer import TrainReport, train
from curate.pretrain.training_data import DataPart, open_training_data
from curate.shards.shard import Shard

COLOURS = ("red", "green", "blue", "yellow")
TINY_VISION = {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2}
TINY_TEXT = {"context_length": 16, "vocab_size": 512, "width": 32, "heads": 2, "layers": 2}


def tiny_model(folder: Path, name: str = "tiny", **more: Any) -> str:
    """A transformer pair of 40,000 weights as a model JSON."""
    path = folder / f"{name}.json"
    vision, text = {**TINY_VISION, **more.pop("vision", {})}, {**TINY_TEXT, **more.pop("text", {})}
    path.write_text(json.dumps({"tokenizer": "words", "embed_dim": 16, "vision_cfg": vision, "text_cfg": text, **more}))
    return str(path)


def with_columns(shard: Shard, folder: Path, captions: bool = True, labels: bool = True) -> Shard:
    """The shard with the columns ``label`` (the colour), ``tags`` (colour and shape) and ``other`` (a second caption),
    by turns without caption or label where one of them is wanted on a part of the samples only.

    Args:
        captions, labels: False leaves the column out.
    """
    table = pq.read_table(shard.table)
    colours = [next(c for c in COLOURS if c in text) for text in table["caption"].to_pylist()]
    folder.mkdir(parents=True, exist_ok=True)
    if labels:
        table = table.append_column("label", pa.array(colours))
        table = table.append_column("tags", pa.array([[c, "square"] for c in colours]))
    table = table.append_column("other", pa.array([f"the colour {c}" for c in colours]))
    if not captions:
        table = table.drop_columns(["caption", "other"])
    path = str(folder / f"{shard.name}.parquet")
    pq.write_table(table, path)
    return Shard(shard.name, shard.tar, path)


def part(shards: list[Shard], share: float = 1.0) -> DataPart:
    return DataPart(shards, None, share)


def run(
    folder: Path,
    recipe: Recipe,
    model: str,
    parts: list[DataPart],
    seen: int,
    seed: int = 0,
    world: World = ALONE,
    validation: DataPart | None = None,
    **more: Any,
) -> TrainReport:
    """Train into ``folder/out``, with the state in ``folder/scratch``."""
    data = open_training_data(recipe, parts, validation)
    out, scratch = str(folder / "out"), str(folder / "scratch")
    more = {"device": "cpu", "validation": data.validation, "classes": data.classes, **more}
    return train(recipe, model, data.samples, seen, seed, out, scratch, world=world, progress_every_s=0, **more)


def digests(folder: Path) -> dict[str, str]:
    """Of every file of the published folder."""
    files = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the published folder."""
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    for path in sorted((folder / "out").glob("*.safetensors")):
        found |= {f"{path.stem}:{name}": tensor for name, tensor in load_file(path).items()}
    return found


def furthest(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> tuple[float, str]:
    """Largest difference of two sets of weights, and where."""
    assert a.keys() == b.keys()
    return max((float((a[name].double() - b[name].double()).abs().max()), name) for name in a if a[name].numel())


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "out/log.jsonl").read_text().splitlines()]
