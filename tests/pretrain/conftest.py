"""A pool that a tiny model can learn in seconds: coloured squares, discs and stripes with captions that name them."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.pretrain.data.dataset import SubsetDataset
from curate.pretrain.encoders.encoder import Encoder
from curate.pretrain.encoders.load_encoder import load_encoder
from curate.pretrain.recipe import ClipRecipe
from curate.pretrain.trainer import TrainReport, train
from curate.shards.shard import Shard
from curate.shards.tar import TarWriter

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "yellow": (230, 210, 50)}
SENTENCES = ("a photo of a {c} square", "one {c} thing on a wall", "this is {c}", "{c}")


def picture(colour: str, rng: np.random.Generator, size: int = 40) -> np.ndarray:
    """A square of the colour somewhere on a grey ground, ``(size, size + 8, 3) uint8``."""
    image = np.full((size, size + 8, 3), rng.integers(90, 160), np.uint8)
    top, left = rng.integers(0, size // 2, 2)
    image[top : top + size // 2, left : left + size // 2] = COLOURS[colour]
    return np.clip(image + rng.integers(-12, 12, image.shape), 0, 255).astype(np.uint8)


def encoded(image: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, form)
    return file.getvalue()


def write_shard(folder: Path, name: str, rows: list[tuple[bytes | None, str | None, str]]) -> Shard:
    """Rows are (image file or None, caption or None, status)."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = [f"{name}{i:06d}" for i in range(len(rows))]
    with TarWriter(str(folder / f"{name}.tar")) as tar:
        for key, (body, caption, _) in zip(keys, rows, strict=True):
            if body is not None:
                tar.write(key, {"png": body} | ({} if caption is None else {"txt": caption.encode()}))
    table = pa.table(
        {
            "key": keys,
            "status": [status for *_, status in rows],
            "caption": pa.array([caption for _, caption, _ in rows], pa.string()),
        }
    )
    pq.write_table(table, folder / f"{name}.parquet")
    return Shard(name, str(folder / f"{name}.tar"), str(folder / f"{name}.parquet"))


def good_rows(count: int, seed: int) -> list[tuple[bytes | None, str | None, str]]:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        colour = list(COLOURS)[i % len(COLOURS)]
        sentence = SENTENCES[rng.integers(len(SENTENCES))]
        rows.append((encoded(picture(colour, rng)), sentence.format(c=colour), "success"))
    return rows


@pytest.fixture(scope="session")
def squares(tmp_path_factory) -> list[Shard]:
    """Two shards of 60 and 36 good samples."""
    folder = tmp_path_factory.mktemp("squares")
    return [write_shard(folder, "00000000", good_rows(60, 1)), write_shard(folder, "00000001", good_rows(36, 2))]


@pytest.fixture(scope="session")
def make_shard():
    """Functions that make shards of any rows: (`write_shard`, `good_rows`)."""
    return write_shard, good_rows


@pytest.fixture(scope="session")
def colour_test():
    """``(images, labels, prompts)``: 80 unseen squares, the index of their colour, and one prompt per colour."""
    rng = np.random.default_rng(77)
    labels = np.arange(80) % len(COLOURS)
    return [picture(list(COLOURS)[i], rng) for i in labels], labels, [f"a photo of a {c} square" for c in COLOURS]


@pytest.fixture(scope="session")
def trained(squares, tmp_path_factory) -> tuple[str, TrainReport]:
    """An encoder folder trained for a few seconds on the squares, and its report."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = ClipRecipe(batch_size=48, lr=3e-3, warmup=10, log_every=7)
    out = str(folder / "model")
    report = train(
        recipe, "RN-mini-32", SubsetDataset(squares), 48 * 60 + 5, 3, out, str(folder / "scratch"), device="cpu"
    )
    return out, report


@pytest.fixture(scope="session")
def encoder(trained) -> Encoder:
    return load_encoder(trained[0], device="cpu")
