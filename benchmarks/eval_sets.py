"""Evaluation sets for the benchmark: the shapes of real ones, scaled down, in the WebDataset layout that both read.

A mix is a list of real sets with their real numbers of pictures, classes and prompts; `written` divides all three by
one factor. What a model's cost depends on is kept: the ratio of pictures to prompts, sets that share class names and
templates (ImageNet's family), five captions per picture, the pictures' sizes and file formats. Where a factor would
leave too little, a floor holds (`MIN_CLASSES` classes, `MIN_PICTURES` pictures, so that recall@10 means something) and
the number of templates gives way, so that prompts stay in proportion. `proportions` says what came of it.

Pictures are crops of scikit-learn's photographs and of synthetic ones (`photographs.py`), each a different one, so that
nothing is gained by remembering pictures. ``web`` is 500 pixels long as lossless WebP (CLIP_benchmark's own export),
``jpeg`` 640 pixels as JPEG, ``large`` 1600 pixels as JPEG, ``small`` 32 to 96 pixels as lossless WebP.

Mixes:

``default``   what is run on a CPU: sets of at most 10,000 pictures, of which nearly all prompts are ImageNet's 80
              templates and captions. 1 picture : 3.8 texts.
``datacomp``  all 40 tasks of DataComp, most lumped together: 732,000 pictures, 310,000 prompts, 30,000 captions.
"""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import peers
import photographs
from PIL import Image

VERSION = 2
MIN_CLASSES, MIN_PICTURES = 8, 16
CAPTIONS = 5
Look = Literal["web", "jpeg", "large", "small"]


@dataclass(frozen=True)
class Real:
    """A set as it is in the world; `family` says whose class names it has."""

    name: str
    pictures: int
    classes: int
    templates: int
    look: Look = "web"
    kind: str = "classification"
    family: str = ""

    @property
    def texts(self) -> int:
        """Prompts or captions."""
        return self.pictures * CAPTIONS if self.kind == "retrieval" else self.classes * self.templates


@dataclass(frozen=True)
class Scaled:
    """A set as it is written."""

    real: Real
    pictures: int
    classes: int
    templates: int

    @property
    def texts(self) -> int:
        """Prompts or captions."""
        return self.pictures * CAPTIONS if self.real.kind == "retrieval" else self.classes * self.templates


MIXES: dict[str, tuple[Real, ...]] = {
    "default": (
        Real("imagenetv2", 10_000, 1000, 80, family="imagenet"),
        Real("imagenet-a", 7_500, 200, 80, family="imagenet"),
        Real("imagenet-o", 2_000, 200, 80, family="imagenet"),
        Real("vtab/dtd", 1_880, 47, 8),
        Real("vtab/eurosat", 5_400, 10, 3, look="small"),
        Real("voc2007_multilabel", 4_952, 20, 1, look="jpeg", kind="multilabel"),
        Real("flickr8k", 1_000, 0, 0, look="jpeg", kind="retrieval"),
        Real("flickr30k", 1_000, 0, 0, look="jpeg", kind="retrieval"),
        Real("mscoco_captions", 5_000, 0, 0, look="jpeg", kind="retrieval"),
    ),
    "datacomp": (
        Real("imagenet1k", 50_000, 1000, 80, family="imagenet"),
        Real("imagenet_sketch", 50_889, 1000, 80, family="imagenet"),
        Real("imagenetv2", 10_000, 1000, 80, family="imagenet"),
        Real("imagenet-a", 7_500, 200, 80, family="imagenet"),
        Real("imagenet-o", 2_000, 200, 80, family="imagenet"),
        Real("imagenet-r", 30_000, 200, 80, family="imagenet"),
        Real("objectnet", 18_574, 113, 80),
        Real("sun397", 108_754, 397, 2),
        Real("photographs", 224_000, 500, 18),  # the other sets of photographs together
        Real("small_pictures", 208_309, 143, 18, look="small"),  # digits, signs, cells, CIFAR
        Real("geography", 16_000, 98, 1, look="large"),  # Dollar Street and GeoDE
        Real("flickr30k", 1_000, 0, 0, look="jpeg", kind="retrieval"),
        Real("mscoco_captions", 5_000, 0, 0, look="jpeg", kind="retrieval"),
    ),
}


def scaled(mix: str, factor: float) -> list[Scaled]:
    """The sets of a mix, every number divided by `factor`."""
    found = []
    for real in MIXES[mix]:
        pictures = max(MIN_PICTURES, round(real.pictures / factor))
        if real.kind == "retrieval":
            found.append(Scaled(real, pictures, 0, 0))
            continue
        classes = max(MIN_CLASSES, round(real.classes / factor))
        templates = min(real.templates, max(1, round(real.texts / factor / classes)))
        found.append(Scaled(real, pictures, classes, templates))
    return found


def proportions(mix: str, factor: float) -> dict[str, Any]:
    """Pictures, texts and their ratio, as in the world and as written, and the share of texts that are distinct."""
    sets = scaled(mix, factor)
    world = [(r.pictures, r.texts) for r in MIXES[mix]]
    here = [(s.pictures, s.texts) for s in sets]

    def of(pairs: list[tuple[int, int]]) -> dict[str, Any]:
        pictures, texts = (sum(column) for column in zip(*pairs, strict=True))
        return {"pictures": pictures, "texts": texts, "texts_per_picture": round(texts / pictures, 3)}

    return {"factor": factor, "real": of(world), "written": of(here), "sets": len(sets)}


# --- pictures


@functools.cache
def _sources() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    natural = [Image.fromarray(image) for image in load_sample_images().images]
    bodies = photographs.load(photographs.photographs(44, peers.cache()))
    return natural * 6 + [Image.open(io.BytesIO(body)).convert("RGB") for body in bodies]


def picture(look: Look, seed: tuple[int, ...]) -> bytes:
    """One file, a function of its arguments."""
    rng = np.random.default_rng([VERSION, *seed])
    source = _sources()[int(rng.integers(len(_sources())))]
    long = {"web": 500, "jpeg": 640, "large": 1600, "small": int(rng.choice([32, 32, 64, 96]))}[look]
    aspect = 1.0 if look == "small" else float(rng.choice([2 / 3, 3 / 4, 3 / 4, 4 / 5]))
    size = (long, round(long * aspect)) if rng.random() < 0.7 else (round(long * aspect), long)
    factor = min(source.width / size[0], source.height / size[1]) * rng.uniform(0.4, 1.0)
    w, h = size[0] * factor, size[1] * factor
    left, top = rng.uniform(0, source.width - w), rng.uniform(0, source.height - h)
    part = source.resize(size, Image.Resampling.LANCZOS, (left, top, left + w, top + h))
    tint = np.clip(np.outer(np.arange(256), rng.uniform(0.6, 1.4, 3)) + rng.uniform(-30, 30, 3), 0, 255)
    part = part.point(tint.astype(np.uint8).T.reshape(-1).tolist())
    file = io.BytesIO()
    if look in ("web", "small"):
        part.save(file, "WEBP", lossless=True, quality=20, method=2)  # less effort to write, read as fast
    else:
        part.save(file, "JPEG", quality=int(rng.choice([85, 90, 95])))
    return file.getvalue()


# --- words


@functools.cache
def _imagenet() -> tuple[list[str], list[str]]:
    import open_clip

    return list(open_clip.IMAGENET_CLASSNAMES), [t("{c}") for t in open_clip.OPENAI_IMAGENET_TEMPLATES]


def words(one: Scaled) -> tuple[list[str], list[str]]:
    """Class names and templates. Sets of a family begin with the same ones; others have names of their own."""
    names, templates = _imagenet()
    if one.real.family == "imagenet":
        return names[: one.classes], templates[: one.templates]
    start = sum(one.real.name.encode()) % 500
    return [names[(start + 3 * i) % len(names)] for i in range(one.classes)], templates[7 : 7 + one.templates]


def captions(rng: np.random.Generator, count: int) -> list[str]:
    """About twelve words each, as people describe photographs."""
    names, _ = _imagenet()
    who = ("a man", "two women", "a young boy", "several people", "a girl in a red coat", "an old couple", "a player")
    does = ("is holding", "walks past", "is looking at", "stands next to", "is sitting on", "plays with", "points at")
    where = (
        "on a sunny day in the park",
        "near the old harbour",
        "at night",
        "in front of a small house",
        "on a table",
    )

    def one(among: Any) -> str:
        return str(among[int(rng.integers(len(among)))])

    return [f"{one(who)} {one(does)} a {one(names)} and a {one(names)} {one(where)}." for _ in range(count)]


# --- files


def folder_of(root: Path, name: str) -> Path:
    """Where a set lies, as CLIP_benchmark's ``wds_{dataset_cleaned}_test``."""
    return root / f"wds_{name.replace('/', '-')}_test"


def _task(arguments: tuple[Look, tuple[int, ...]]) -> bytes:
    return picture(*arguments)


def write_set(root: Path, one: Scaled, number: int, files: list[bytes]) -> None:
    """One set; a tar holds up to 10,000 pictures, so each of ours is one."""
    from curate.shards.tar import TarWriter

    folder = folder_of(root, one.real.name)
    (folder / "test").mkdir(parents=True)
    rng = np.random.default_rng([VERSION, number])
    kind = one.real.kind
    if kind != "classification":
        (folder / "dataset_type.txt").write_text(f"{kind}\n")
    if kind != "retrieval":
        names, templates = words(one)
        (folder / "classnames.txt").write_text("".join(f"{line}\n" for line in names))
        lines = "".join(f"{line}\n" for line in templates)
        (folder / "zeroshot_classification_templates.txt").write_text(lines)
    with TarWriter(str(folder / "test" / "0.tar")) as tar:
        for index, data in enumerate(files):
            members: dict[str, bytes] = {"webp" if data[:4] == b"RIFF" else "jpg": data}
            if kind == "retrieval":
                members["txt"] = "\n".join(captions(rng, CAPTIONS)).encode()
            elif kind == "multilabel":
                right = (rng.random(one.classes) < 1.5 / one.classes).astype(np.int64)
                right[rng.integers(one.classes)] = 1
                file = io.BytesIO()
                np.save(file, right)
                members["npy"] = file.getvalue()
            else:
                members["cls"] = str(int(rng.integers(one.classes))).encode()
            tar.write(f"s{index:07d}", members)
    (folder / "test" / "nshards.txt").write_text("1\n")


def written(mix: str, factor: float, folder: Path | None = None) -> Path:
    """The folder of a mix's sets; made if it is not there, which takes a few tenths of a second per picture."""
    place = (folder or peers.cache()) / f"eval-sets-{VERSION}-{mix}-{factor:g}"
    if (place / "whole").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    sets = scaled(mix, factor)
    _sources()  # before the processes part
    with multiprocessing.get_context("fork").Pool(min(2, os.cpu_count() or 1)) as pool:
        for number, one in enumerate(sets):
            asked = [(one.real.look, (number, index)) for index in range(one.pictures)]
            write_set(place, one, number, pool.map(_task, asked, chunksize=8))
    (place / "whole").write_text(json.dumps(proportions(mix, factor)) + "\n")
    return place
