"""Pictures and captions for the training benchmark: something to learn at realistic sizes, the same on every machine.

A picture is a crop of a synthetic photograph (`photographs.py`), tinted by its setting, with two shapes on it; longer
side 256 to 512 pixels, JPEG quality 80 to 95, 4:2:0. Its caption says the setting, and size, colour, kind and place of
the shapes: about 20 words, nearly all different, so that a batch holds hardly two that fit one picture. What a model
can learn of it goes from the tint (easy) to which shape is where (hard): losses fall for thousands of samples.
"""

from __future__ import annotations

import io
import multiprocessing
import os
from pathlib import Path

import numpy as np
import peers
import photographs
from PIL import Image, ImageDraw

VERSION = 1
PER_SHARD = 1024
COLOURS = {
    "red": (220, 30, 35),
    "green": (35, 170, 60),
    "blue": (40, 70, 220),
    "yellow": (240, 220, 40),
    "purple": (140, 50, 170),
    "orange": (245, 140, 25),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
KINDS = ("circle", "square", "triangle", "cross", "ring", "star")
PLACES = {
    "at the top left": (0.25, 0.25),
    "at the top right": (0.75, 0.25),
    "in the middle": (0.5, 0.5),
    "at the bottom left": (0.25, 0.75),
    "at the bottom right": (0.75, 0.75),
}
SIZES = {"small": 0.09, "big": 0.17}
SETTINGS = {
    "on a meadow": (0.7, 1.1, 0.6),
    "in the desert": (1.2, 1.0, 0.65),
    "by the sea": (0.65, 0.95, 1.25),
    "at night": (0.35, 0.35, 0.5),
    "in the snow": (1.5, 1.5, 1.55),
    "at sunset": (1.3, 0.75, 0.7),
}
WORDS = ("a photo of", "a picture of", "we see", "there is", "snapshot:", "close-up of", "an old photo of")

_SCENES: list[Image.Image] = []


def _scenes() -> list[Image.Image]:
    if not _SCENES:
        bodies = photographs.load(photographs.photographs(44, peers.cache()))
        _SCENES.extend(Image.open(io.BytesIO(body)).convert("RGB") for body in bodies)
    return _SCENES


def _shape(draw: ImageDraw.ImageDraw, kind: str, x: float, y: float, r: float, colour: tuple[int, ...]) -> None:
    box = (x - r, y - r, x + r, y + r)
    if kind == "circle":
        draw.ellipse(box, fill=colour)
    elif kind == "ring":
        draw.ellipse(box, outline=colour, width=max(2, round(r / 3)))
    elif kind == "square":
        draw.rectangle(box, fill=colour)
    elif kind == "cross":
        draw.rectangle((x - r, y - r / 4, x + r, y + r / 4), fill=colour)
        draw.rectangle((x - r / 4, y - r, x + r / 4, y + r), fill=colour)
    else:
        points = 3 if kind == "triangle" else 10
        radii = r * (np.ones(3) if kind == "triangle" else np.tile([1.0, 0.42], 5))
        angles = 2 * np.pi * np.arange(points) / points - np.pi / 2
        draw.polygon([(x + a * np.cos(t), y + a * np.sin(t)) for a, t in zip(radii, angles, strict=True)], fill=colour)


def pair(number: int) -> tuple[bytes, str]:
    """A JPEG file and its caption, a function of the number."""
    rng = np.random.default_rng([VERSION, number])

    def one(among: list[str] | tuple[str, ...]) -> str:
        return among[int(rng.integers(len(among)))]

    setting = one(list(SETTINGS))
    long, aspect = int(rng.integers(256, 513)), float(rng.choice([2 / 3, 3 / 4, 3 / 4, 1.0]))
    width, height = (long, round(long * aspect)) if rng.random() < 0.65 else (round(long * aspect), long)
    scene = _scenes()[int(rng.integers(len(_scenes())))]
    factor = min(scene.width / width, scene.height / height) * rng.uniform(0.6, 1.0)
    w, h = width * factor, height * factor
    left, top = rng.uniform(0, scene.width - w), rng.uniform(0, scene.height - h)
    picture = scene.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + w, top + h))
    tint = np.clip(np.outer(np.arange(256), SETTINGS[setting]), 0, 255).astype(np.uint8)
    picture = picture.point(tint.T.reshape(-1).tolist())
    draw, things = ImageDraw.Draw(picture), []
    places = list(PLACES)
    for place in rng.choice(len(places), 2, replace=False).tolist():
        size, colour, kind = one(list(SIZES)), one(list(COLOURS)), one(KINDS)
        x, y = np.array(PLACES[places[place]]) + rng.uniform(-0.04, 0.04, 2)
        short = min(width, height)
        _shape(draw, kind, x * width, y * height, SIZES[size] * short * rng.uniform(0.9, 1.1), COLOURS[colour])
        things.append(f"a {size} {colour} {kind} {places[place]}")
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(rng.choice([80, 85, 90, 95])))
    return file.getvalue(), f"{one(WORDS)} {things[0]} and {things[1]}, {setting}"


def shards(first: int, count: int, per_shard: int = PER_SHARD) -> Path:
    """A folder of tars and tables of the pairs ``first..first+count-1``; made if it is not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.shards.tar import TarWriter

    folder = peers.cache() / f"train-pairs-{VERSION}-{first}-{count}-{per_shard}"
    if (folder / "whole").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _scenes()
    with multiprocessing.Pool(min(2, os.cpu_count() or 1)) as pool:
        for s, start in enumerate(range(first, first + count, per_shard)):
            numbers = range(start, min(start + per_shard, first + count))
            made, keys = pool.map(pair, numbers, chunksize=32), [f"{i:09d}" for i in numbers]
            with TarWriter(str(folder / f"{s:05d}.tar")) as tar:
                for key, (body, caption) in zip(keys, made, strict=True):
                    tar.write(key, {"jpg": body, "txt": caption.encode()})
            table = {"key": keys, "status": ["success"] * len(keys), "caption": [caption for _, caption in made]}
            pq.write_table(pa.table(table), folder / f"{s:05d}.parquet")
    (folder / "whole").touch()
    return folder


def opened(folder: Path) -> list:
    """The folder's shards, for `SubsetDataset`."""
    from curate.shards.shard import Shard

    return [Shard(p.stem, str(p), str(p.with_suffix(".parquet"))) for p in sorted(folder.glob("*.tar"))]


def read(folder: Path) -> tuple[list[bytes], list[str]]:
    """All files and captions."""
    from curate.shards.tar import TarReader

    found = [members for path in sorted(folder.glob("*.tar")) for _, members in TarReader(str(path)).samples()]
    return [bytes(members["jpg"]) for members in found], [bytes(members["txt"]).decode() for members in found]
