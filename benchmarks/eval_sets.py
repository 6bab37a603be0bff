"""Evaluation sets for the benchmark: the shapes of real ones, scaled down, in the WebDataset layout that both read.

A mix is a list of real sets with their real numbers of pictures, classes and prompts; `written` divides all three by
one factor. What a model's cost depends on is kept: the ratio of pictures to prompts, sets that share class names and
templates (ImageNet's family) or pictures (languages), captions per picture, the pictures' sizes and file formats. Where
a factor would leave too little, a floor holds (`MIN_CLASSES` classes, `MIN_PICTURES` pictures, so that recall@10 means
something) and the number of templates gives way, so that prompts stay in proportion: `proportions` tells.

Pictures are crops of scikit-learn's photographs and of synthetic ones (`photographs.py`), each a different one, so that
nothing is gained by remembering pictures but where the real sets share them. ``web`` is 500 pixels long as lossless
WebP (CLIP_benchmark's own export), ``jpeg`` 640 pixels as JPEG, ``large`` 1600 pixels as JPEG, ``small`` 32 to 96
pixels as lossless WebP.

Mixes:

``multilingual``  what one runs of clip-benchmark's to tell how a model does in other languages than English, and in
                  English: ``reported``, and Babel-ImageNet in the languages of ``reported`` (the classes that each has,
                  80 templates). 29 sets.
``reported``      what clip-benchmark's page on its own results tells to run, but for large English sets: its
                  multilingual ImageNet benchmark (the 50,000 validation pictures in four languages), its multilingual
                  MS-COCO benchmark (1,000 pictures in eight), and the sets of ``english``. 21 sets.
``english``       nine sets of at most 10,000 pictures, of which nearly all prompts are ImageNet's 80 templates and
                  captions. No two share a picture. 1 picture : 3.8 texts.
``datacomp``      all 40 tasks of DataComp, most lumped together: 732,000 pictures, 310,000 prompts, 30,000 captions. No
                  two share a picture. 1 picture : 0.46 texts.

A picture of two sets counts twice in ``pictures``, once in ``distinct_pictures``; texts likewise.
"""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import eval_words
import numpy as np
import peers
import photographs
from PIL import Image

VERSION = 3
MIN_CLASSES, MIN_PICTURES = 8, 16
Look = Literal["web", "jpeg", "large", "small"]


@dataclass(frozen=True)
class Real:
    """A set as it is in the world; `family` says whose class names it has, `pictures_of` whose pictures."""

    name: str
    pictures: int
    classes: int
    templates: int
    look: Look = "web"
    kind: str = "classification"
    family: str = ""
    language: str = "en"
    captions: int = 5
    pictures_of: str = ""

    @property
    def source(self) -> str:
        """Name of its pictures: sets with the same one have the same."""
        return self.pictures_of or self.name

    @property
    def texts(self) -> int:
        """Prompts or captions."""
        return self.pictures * self.captions if self.kind == "retrieval" else self.classes * self.templates


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
        return self.pictures * self.real.captions if self.real.kind == "retrieval" else self.classes * self.templates


ENGLISH = (
    Real("imagenetv2", 10_000, 1000, 80, family="imagenet"),
    Real("imagenet-a", 7_500, 200, 80, family="imagenet"),
    Real("imagenet-o", 2_000, 200, 80, family="imagenet"),
    Real("vtab/dtd", 1_880, 47, 8),
    Real("vtab/eurosat", 5_400, 10, 3, look="small"),
    Real("voc2007_multilabel", 4_952, 20, 1, look="jpeg", kind="multilabel"),
    Real("flickr8k", 1_000, 0, 0, look="jpeg", kind="retrieval"),
    Real("flickr30k", 1_000, 0, 0, look="jpeg", kind="retrieval"),
    Real("mscoco_captions", 5_000, 0, 0, look="jpeg", kind="retrieval"),
)
IMAGENET = tuple(
    Real(f"imagenet1k-{word}", 50_000, 1000, n, family="imagenet", language=word, pictures_of="imagenet1k")
    for word, n in (("zh", 80), ("it", 49), ("jp", 37), ("en", 80))
)
COCO = tuple(
    Real(f"coco-{word}", 1_000, 0, 0, look="jpeg", kind="retrieval", language=word, captions=1, pictures_of="xtd10")
    for word in ("es", "it", "ko", "pl", "ru", "tr", "zh", "en")
)

BABEL = tuple(
    Real(f"babel-{word}", 50 * n, n, 80, family="babel", language=word, pictures_of="imagenet1k")
    for word, n in {"es": 845, "it": 773, "ko": 648, "pl": 778, "ru": 748, "tr": 559, "zh": 885, "ja": 733}.items()
)

MIXES: dict[str, tuple[Real, ...]] = {
    "multilingual": (*IMAGENET, *BABEL, *COCO, *ENGLISH),
    "reported": (*IMAGENET, *COCO, *ENGLISH),
    "english": ENGLISH,
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


def _distinct(sets: Iterable[tuple[Real, int, int, int]]) -> tuple[int, int]:
    """Pictures and texts, those that sets share counted once; of (set, pictures, classes, templates)."""
    pictures: dict[str, int] = {}
    prompts: dict[tuple[str, str], np.ndarray] = {}
    captions = 0
    for real, count, classes, templates in sets:
        pictures[real.source] = max(count, pictures.get(real.source, 0))
        if real.kind == "retrieval":
            captions += count * real.captions
        else:  # sets of a family have the first of the same class names, and of the same templates
            key = real.family or real.name, real.language
            prompts.setdefault(key, np.zeros((1000, 80), bool))[:classes, :templates] = True
    return sum(pictures.values()), captions + sum(int(grid.sum()) for grid in prompts.values())


def proportions(mix: str, factor: float) -> dict[str, Any]:
    """Pictures, texts and their ratio, as in the world and as written; and how many of them are distinct."""
    sets = scaled(mix, factor)
    world = [(r, r.pictures, r.classes, r.templates) for r in MIXES[mix]]
    here = [(s.real, s.pictures, s.classes, s.templates) for s in sets]

    def of(rows: list[tuple[Real, int, int, int]], texts: int) -> dict[str, Any]:
        pictures, (one_each, texts_each) = sum(row[1] for row in rows), _distinct(rows)
        return {
            "pictures": pictures,
            "texts": texts,
            "distinct_pictures": one_each,
            "distinct_texts": texts_each,
            "texts_per_picture": round(texts / pictures, 3),
        }

    real, written = sum(r.texts for r in MIXES[mix]), sum(s.texts for s in sets)
    return {"factor": factor, "real": of(world, real), "written": of(here, written), "sets": len(sets)}


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


def words(one: Scaled, lists: Path | None = None) -> tuple[list[str], list[str]]:
    """Class names and templates. Sets of a family and language begin with the same ones; others have their own.

    Args:
        lists: folder of clip-benchmark's files of class names; English sets do without.
    """
    if one.real.family:
        lists = lists if one.real.language != "en" else None
        names, templates = getattr(eval_words, one.real.family)(one.real.language, lists)
        return names[: one.classes], templates[: one.templates]
    names, templates = eval_words.imagenet()
    start = sum(one.real.name.encode()) % 500
    return [names[(start + 3 * i) % len(names)] for i in range(one.classes)], templates[7 : 7 + one.templates]


# --- files


def folder_of(root: Path, name: str) -> Path:
    """Where a set lies, as CLIP_benchmark's ``wds_{dataset_cleaned}_test``."""
    return root / f"wds_{name.replace('/', '-')}_test"


def _task(arguments: tuple[Look, tuple[int, ...]]) -> bytes:
    return picture(*arguments)


def write_set(root: Path, one: Scaled, number: int, files: list[bytes], lists: Path | None = None) -> None:
    """One set; a tar holds up to 10,000 pictures, so each of ours is one. `number` is that of its pictures."""
    from curate.shards.tar import TarWriter

    folder = folder_of(root, one.real.name)
    (folder / "test").mkdir(parents=True)
    rng = np.random.default_rng([VERSION, number])
    kind = one.real.kind
    if kind != "classification":
        (folder / "dataset_type.txt").write_text(f"{kind}\n")
    if kind != "retrieval":
        names, templates = words(one, lists)
        (folder / "classnames.txt").write_text("".join(f"{line}\n" for line in names), "utf-8")
        lines = "".join(f"{line}\n" for line in templates)
        (folder / "zeroshot_classification_templates.txt").write_text(lines, "utf-8")
    with TarWriter(str(folder / "test" / "0.tar")) as tar:
        for index, data in enumerate(files):
            members: dict[str, bytes] = {"webp" if data[:4] == b"RIFF" else "jpg": data}
            if kind == "retrieval":
                members["txt"] = "\n".join(eval_words.captions(rng, one.real.captions, one.real.language)).encode()
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


def written(mix: str, factor: float, lists: Path | None = None, folder: Path | None = None) -> Path:
    """The folder of a mix's sets; made if it is not there, which takes a few tenths of a second per picture.

    Args:
        lists: folder of clip-benchmark's files of class names; English mixes do without.
    """
    place = (folder or peers.cache()) / f"eval-sets-{VERSION}-{mix}-{factor:g}"
    if (place / "whole").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    numbers: dict[str, int] = {}
    made: dict[str, list[bytes]] = {}
    _sources()  # before the processes part
    with multiprocessing.get_context("fork").Pool(min(2, os.cpu_count() or 1)) as pool:
        for one in sorted(scaled(mix, factor), key=lambda one: -one.pictures):  # the largest of a source is a first
            number = numbers.setdefault(one.real.source, len(numbers))
            if one.real.source not in made:
                asked = [(one.real.look, (number, index)) for index in range(one.pictures)]
                made[one.real.source] = pool.map(_task, asked, chunksize=8)
            write_set(place, one, number, made[one.real.source][: one.pictures], lists)
    (place / "whole").write_text(json.dumps(proportions(mix, factor)) + "\n")
    return place
