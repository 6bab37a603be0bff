"""What embedding a shard costs beside the model itself.

    python benchmarks/embed.py [--json] [--quick] [--size 512]

Crops of scikit-learn's two photographs are stored as a pool stores them (JPEG of quality 95, longer side `--size`) and
embedded by models with random weights. Everything runs in this process on one torch thread; figures are CPU seconds
of the whole process, decoding thread included, medians of ratios over rounds in which the sides take turns.

* ``overhead``: `embed_shards` over a shard without captions (read, decode, resize, normalise, forward, store) against
  open_clip's own `encode_image` over ready float32 tensors, at the same batch size; minus 1. ``overhead_own``: against
  our own forward over ready uint8 batches, which leaves out part of the last block and is faster than open_clip's.
* ``two_encoder_ratio``: one pass for ViT-B-32 and RN50 against the sum of what open_clip's two forwards cost over
  ready tensors; ``two_encoder_ratio_own``: against the sum of our own two forwards.
* ``text_speedup``: open_clip's tokenizer and `encode_text` over captions of about ten words, padded to 77 tokens,
  against our `encode_texts` (tokenizer included), per caption, at the same batch size; and how far the outputs differ.
  Padded captions all cost the same, so fewer of them are timed.
* ``similarity_difference``: largest difference of the cosine similarities of ViT-B-32 from those of the plain loop.

Floors, in ms per picture: reading and decoding, resizing. On a GPU: images per second of the pass against the model's
own and the decoders' own, and which of them is the bottleneck. With `--json` the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from curate.pretrain.data.tokenizer import tokenizer_for
from curate.pretrain.encoders.embed import Embedding, embed_shards
from curate.pretrain.encoders.encoder import Encoder
from curate.pretrain.models.architecture import build, resolve_model
from curate.shards.image_pass import Picture, read_images
from curate.shards.images.image import ImageOptions, process
from curate.shards.shard import Shard
from curate.shards.tar import TarWriter

MODELS = ("ViT-B-32", "RN50")


# --- what is embedded


def pictures(count: int, size: int) -> list[bytes]:
    """Stored JPEGs of crops of natural photographs, in the shapes that the web has."""
    rng = np.random.default_rng(0)
    photos = load_sample_images().images
    options = ImageOptions(size=size, only_if_bigger=False)
    found = []
    for i in range(count):
        photo = photos[i % len(photos)]
        h = int(rng.integers(250, 420))
        w = int(np.clip(h * rng.choice([2 / 3, 3 / 4, 1, 4 / 3, 3 / 2]), 200, 640))
        top, left = rng.integers(0, photo.shape[0] - h + 1), rng.integers(0, photo.shape[1] - w + 1)
        file = io.BytesIO()
        Image.fromarray(photo[top : top + h, left : left + w]).save(file, "JPEG", quality=95)
        found.append(process(file.getvalue(), options).data)
    return found


def write_shard(folder: Path, bodies: Sequence[bytes], captions: Sequence[str | None]) -> Shard:
    name = f"{len(list(folder.iterdir())):08d}"
    keys = [f"{i:09d}" for i in range(len(bodies))]
    with TarWriter(str(folder / f"{name}.tar")) as tar:
        for key, body in zip(keys, bodies, strict=True):
            tar.write(key, {"jpg": body})
    table = {"key": keys, "status": ["success"] * len(keys), "caption": pa.array(captions, pa.string())}
    pq.write_table(pa.table(table), folder / f"{name}.parquet")
    return Shard(name, str(folder / f"{name}.tar"), str(folder / f"{name}.parquet"))


def ten_words(count: int) -> list[str]:
    """Captions of about ten words: open_clip's prompt templates with its class names, and what people add."""
    rng = np.random.default_rng(1)
    classes, templates = open_clip.IMAGENET_CLASSNAMES, open_clip.OPENAI_IMAGENET_TEMPLATES
    tails = (
        "",
        "near the old harbour",
        "on a sunny day in the park with a friend",
        "for sale, free shipping",
        "at night",
    )
    found: dict[str, None] = {}
    while len(found) < count:
        prompt = templates[rng.integers(len(templates))](classes[rng.integers(len(classes))]).rstrip(".")
        found[f"{prompt} {tails[rng.integers(len(tails))]}".strip()] = None
    return list(found)


# --- measuring


def cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def turns(rounds: int, sides: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """CPU seconds of each side, round after round; a first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for r in range(rounds + 1):
        for name, work in sides.items():
            seconds = cpu(work)
            if r:
                found[name].append(seconds)
    return found


def ratio(above: Sequence[float], *below: Sequence[float]) -> float:
    return statistics.median(a / sum(b) for a, *b in zip(above, *below, strict=True))


class Ready:
    """A model's inputs, prepared, and its two bare forwards over them."""

    def __init__(self, encoder: Encoder, bodies: Sequence[bytes]) -> None:
        self.encoder = encoder
        geometry = encoder.spec.preprocess
        transform = open_clip.image_transform(geometry.size, False, geometry.mean, geometry.std)
        pixels = torch.stack([transform(Image.open(io.BytesIO(body))) for body in bodies])  # type: ignore[operator]
        self.floats = list(pixels.split(encoder.batch))
        self.bytes = []
        for start in range(0, len(bodies), encoder.batch):
            self.bytes.append(encoder.new_batch())
            for i, body in enumerate(bodies[start : start + encoder.batch]):
                self.bytes[-1][i] = torch.from_numpy(encoder.prepare(body).copy())

    def open_clips(self) -> torch.Tensor:
        with torch.inference_mode():
            encode: Any = self.encoder.model.encode_image
            return torch.cat([encode(batch, normalize=True) for batch in self.floats])

    def ours(self) -> None:
        for batch in self.bytes:
            self.encoder.submit(batch)()


def random_encoder(name: str, device: str = "cpu", precision: Any = "fp32") -> Encoder:
    spec = resolve_model(name)
    tokenizer = tokenizer_for(spec.tokenizer, spec.config["text_cfg"])
    return Encoder(build(spec, seed=0), spec, tokenizer, torch.device(device), precision)


# --- the figures


def image_figures(folder: Path, count: int, rounds: int, size: int) -> dict[str, Any]:
    bodies = pictures(count, size)
    captions = ten_words(count)
    shard = write_shard(folder, bodies, [None] * count)
    encoders = {name: random_encoder(name) for name in MODELS}
    ready = {name: Ready(encoder, bodies) for name, encoder in encoders.items()}
    first = {MODELS[0]: encoders[MODELS[0]]}
    sides: dict[str, Callable[[], object]] = {
        "one": lambda: embed_shards(first, [shard]),
        "two": lambda: embed_shards(encoders, [shard]),
    }
    for name in MODELS:
        sides[f"open_clip {name}"] = ready[name].open_clips
        sides[f"own {name}"] = ready[name].ours
    found = turns(rounds, sides)
    theirs, own = ([found[f"{kind} {name}"] for name in MODELS] for kind in ("open_clip", "own"))

    captioned = write_shard(folder, bodies, captions)
    both = {"fp32": Embedding(first[MODELS[0]], "float32"), "fp16": Embedding(first[MODELS[0]], "float16")}
    some = embed_shards(both, [captioned]).shards[0].embedded
    with torch.inference_mode():
        model: Any = encoders[MODELS[0]].model
        tokens = open_clip.get_tokenizer(MODELS[0])(captions)
        text = torch.cat([model.encode_text(part, normalize=True) for part in tokens.split(32)])
    expected = (ready[MODELS[0]].open_clips() * text).sum(1).numpy()
    apart = {
        key: float(np.abs((one.image.astype(np.float32) * one.text.astype(np.float32)).sum(1) - expected).max())
        for key, one in some.items()
        if one.text is not None
    }
    return {
        "overhead": round(ratio(found["one"], theirs[0]) - 1, 4),
        "overhead_own": round(ratio(found["one"], own[0]) - 1, 4),
        "two_encoder_ratio": round(ratio(found["two"], *theirs), 4),
        "two_encoder_ratio_own": round(ratio(found["two"], *own), 4),
        "similarity_difference": apart,
        "batch": encoders[MODELS[0]].batch,
        "cpu_ms_per_image": {name: round(1e3 * statistics.median(s) / count, 2) for name, s in found.items()},
        "floors_ms_per_image": floors(shard, encoders[MODELS[0]], count),
    }


def floors(shard: Shard, encoder: Encoder, count: int) -> dict[str, float]:
    """What must be done for a picture whatever the model is."""
    tar = shard.open()
    keys = shard.read_table(["key"])["key"].to_pylist()
    decoded = [Picture(tar.read(key, "jpg") or b"").rgb for key in keys]
    read = statistics.median(cpu(lambda: [Picture(tar.read(k, "jpg") or b"").rgb for k in keys]) for _ in range(5))
    resized = statistics.median(cpu(lambda: [encoder.prepare(rgb) for rgb in decoded]) for _ in range(5))
    return {"read and decode": round(1e3 * read / count, 3), "resize": round(1e3 * resized / count, 3)}


def text_figures(count: int, padded: int, rounds: int) -> dict[str, Any]:
    encoder = random_encoder(MODELS[0])
    captions = ten_words(count)
    some = captions[:: count // padded][:padded]
    tokenizer = open_clip.get_tokenizer(MODELS[0])
    model: Any = encoder.model

    def plain() -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([model.encode_text(t, normalize=True) for t in tokenizer(some).split(encoder.text_batch)])

    found = turns(rounds, {"ours": lambda: encoder.encode_texts(captions), "open_clip": plain})
    ours = dict(zip(captions, encoder.encode_texts(captions), strict=True))
    apart = np.abs(np.stack([ours[text] for text in some]) - plain().numpy()).max()
    if apart > 1e-5:
        raise SystemExit(f"captions cut to their length give other embeddings: {apart:.1e}")
    per = {
        "ours": statistics.median(found["ours"]) / count,
        "open_clip": statistics.median(found["open_clip"]) / padded,
    }
    return {
        "text_speedup": round(ratio(found["open_clip"], found["ours"]) * count / padded, 2),
        "text_difference": float(apart),
        "words_per_caption": round(statistics.fmean(len(text.split()) for text in captions), 1),
        "cpu_ms_per_caption": {name: round(1e3 * seconds, 2) for name, seconds in per.items()},
    }


class _Prepared:
    """A reader that only has pictures prepared."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def begin(self, index: int, shard: Shard, rows: int) -> None: ...

    def prepare(self, picture: Picture) -> np.ndarray:
        return self._encoder.prepare(picture.rgb)

    def take(self, index: int, row: int, prepared: np.ndarray) -> None: ...

    def finish(self) -> None: ...


def gpu_figures(folder: Path, size: int, count: int) -> dict[str, Any]:
    """Images per second of the pass, of the model alone and of the decoders alone, and which of the two binds."""
    encoder = random_encoder(MODELS[0], "cuda", "bf16")
    bodies = pictures(256, size)
    shard = write_shard(folder, [bodies[i % len(bodies)] for i in range(count)], [None] * count)
    threads = max(1, (os.cpu_count() or 2) - 1)
    batch = encoder.new_batch()

    def rate(work: Callable[[], object]) -> float:
        work()
        started = time.perf_counter()
        work()
        return count / (time.perf_counter() - started)

    def forward() -> None:
        waits = [encoder.submit(batch) for _ in range(count // encoder.batch)]
        for wait in waits:
            wait()

    rates = {
        "pass": rate(lambda: embed_shards({MODELS[0]: encoder}, [shard], threads=threads)),
        "model": rate(forward),
        "decoding": rate(lambda: read_images([shard], [_Prepared(encoder)], threads)),
    }
    bottleneck = "model" if rates["model"] < rates["decoding"] else f"decoding and resizing on {threads} threads"
    return {
        "images_per_s": {name: round(value) for name, value in rates.items()},
        "of_model_ceiling": round(rates["pass"] / rates["model"], 3),
        "bottleneck": bottleneck,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer pictures and rounds")
    parser.add_argument("--size", type=int, default=512, help="longer side of the stored pictures, pixels")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # open_clip about random weights
    torch.set_num_threads(1)
    count, rounds, captions, padded = (16, 2, 512, 32) if options.quick else (32, 3, 512, 48)
    with tempfile.TemporaryDirectory(prefix="curate-bench-") as name:
        figures = image_figures(Path(name), count, rounds, options.size)
        print(f"{count} JPEGs of {options.size} px, batch {figures['batch']}, {rounds} rounds: CPU ms per image")
        for side, ms in figures["cpu_ms_per_image"].items():
            print(f"  {side:20} {ms:8.2f}")
        floor = figures["floors_ms_per_image"]
        print(f"  floors: {', '.join(f'{k} {v:.2f}' for k, v in floor.items())}")
        print(f"overhead            {figures['overhead']:+.3f} (our own forward: {figures['overhead_own']:+.3f})")
        print(f"two encoders        {figures['two_encoder_ratio']:.3f} ({figures['two_encoder_ratio_own']:.3f})")
        apart = figures["similarity_difference"]
        print(f"similarities differ fp32 {apart['fp32']:.1e}, fp16 {apart['fp16']:.1e}")
        figures |= text_figures(captions, padded, rounds)
        ms = figures["cpu_ms_per_caption"]
        print(
            f"captions of {figures['words_per_caption']} words: {ms['ours']:.1f} ms, padded {ms['open_clip']:.1f} ms: "
            f"{figures['text_speedup']:.2f}x, equal to {figures['text_difference']:.1e}"
        )
        if torch.cuda.is_available():
            figures["gpu"] = gpu_figures(Path(name), options.size, 2048 if options.quick else 16384)
            print(f"GPU: {figures['gpu']}")
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
