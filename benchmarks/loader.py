"""Samples per second and core of the training loader, side by side with open_clip's own pipeline.

    python benchmarks/loader.py [--json] [--quick]

Both read the same WebDataset shards (photographs, natural and synthetic, longer side 256 to 512 pixels, JPEG quality 80
to 95, 4:2:0, captions of about ten words) and make the same thing of them: random crops of 0.9 to 1 of the area at 224
pixels, bicubic, as normalised float32 tensors, and 77 BPE tokens per caption by open_clip's tokenizer. open_clip 3.3's
`get_wds_dataset` runs with the webdataset that it asks for (0.2.86) in an environment of its own; torch, Pillow and
open_clip are this environment's, so that both sides use the same. It has `--workers` processes, we as many threads.

Each side is a process that loads one epoch per turn; sides take turns, round after round. A figure is the CPU time of
the whole process tree between two turns, user and system, per sample; ratios are medians over rounds. Start-up and a
first epoch are not counted. Ours includes `transform.normalised`, into memory that is used again (a training on a
GPU does it there instead).
``floor`` is libjpeg-turbo's decoding alone, into memory that is used again. With `--json` the last line is one JSON
object: ``ratio`` (our samples per CPU second over theirs), the figures, and how well the orders mix
(`shuffle_quality.py`).
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import peers

WEBDATASET = ("webdataset==0.2.86", "numpy==2.4.6", "pandas==2.3.3", "braceexpand==0.1.7", "PyYAML==6.0.3")
SIZE, MEAN, STD = 224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BATCH = 128

# --- what is loaded


def pictures(count: int) -> list[bytes]:
    """JPEGs of the sizes that a pool for 224-pixel trainings holds."""
    import photographs
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    natural = [Image.fromarray(image) for image in load_sample_images().images]
    try:
        from skimage import data
    except ImportError:
        pass
    else:
        natural += [Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket")]
    path = photographs.photographs(44, peers.cache())
    synthetic = [Image.open(io.BytesIO(body)).convert("RGB") for body in photographs.load(path)]
    found = []
    for i in range(count):
        kind = natural if i % 2 else synthetic
        picture = kind[int(rng.integers(len(kind)))]
        long = int(rng.integers(256, 513))
        aspect = float(rng.choice([2 / 3, 3 / 4, 3 / 4, 1.0]))
        size = (long, round(long * aspect)) if rng.random() < 0.65 else (round(long * aspect), long)
        factor = min(picture.width / size[0], picture.height / size[1]) * rng.uniform(0.75, 1.0)
        w, h = size[0] * factor, size[1] * factor
        left, top = rng.uniform(0, picture.width - w), rng.uniform(0, picture.height - h)
        part = picture.resize(size, Image.Resampling.LANCZOS, (left, top, left + w, top + h))
        file = io.BytesIO()
        part.save(file, "JPEG", quality=int(rng.choice([80, 85, 90, 95])))
        found.append(file.getvalue())
    return found


def captions(count: int) -> list[str]:
    """About ten words each, nearly all different."""
    import open_clip

    rng = np.random.default_rng(1)
    classes, templates = open_clip.IMAGENET_CLASSNAMES, open_clip.OPENAI_IMAGENET_TEMPLATES
    tails = (
        "near the old harbour",
        "on a sunny day in the park",
        "for sale, free shipping",
        "at night",
        "- stock photo",
    )
    return [
        f"{templates[rng.integers(len(templates))](classes[rng.integers(len(classes))]).rstrip('.')} "
        f"{tails[rng.integers(len(tails))]} {rng.integers(1000)}"
        for _ in range(count)
    ]


def write_shards(folder: Path, count: int, shards: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.shards.tar import TarWriter

    bodies, texts = pictures(count), captions(count)
    for s in range(shards):
        rows = range(s * count // shards, (s + 1) * count // shards)
        keys = [f"{s:05d}{i:05d}" for i in rows]
        with TarWriter(str(folder / f"{s:05d}.tar")) as tar:
            for key, i in zip(keys, rows, strict=True):
                tar.write(key, {"jpg": bodies[i], "txt": texts[i].encode()})
        table = {"key": keys, "status": ["success"] * len(keys), "caption": [texts[i] for i in rows]}
        pq.write_table(pa.table(table), folder / f"{s:05d}.parquet")
    print(f"{count} pictures, {statistics.mean(map(len, bodies)) / 1e3:.1f} KB on average", file=sys.stderr, flush=True)


# --- the two sides: processes that load one epoch for each line they are sent

SERVE = """
def tree_cpu():
    import os, psutil
    me = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in [me, *me.children(recursive=True)])

def serve(epoch):
    import json, sys, time
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        before, begun = tree_cpu(), time.monotonic()
        samples = epoch()
        found = {"samples": samples, "cpu": tree_cpu() - before, "wall": time.monotonic() - begun}
        print(json.dumps(found), file=out, flush=True)
"""

THEIRS = (
    SERVE
    + """
import sys, types, torch, open_clip
from open_clip_train.data import get_wds_dataset
torch.set_num_threads(1)
pattern, count, batch, workers, size, mean, std = eval(sys.argv[1])
args = types.SimpleNamespace(
    train_data=pattern, train_num_samples=count, train_data_upsampling_factors=None, val_data=None,
    dataset_resampled=False, batch_size=batch, workers=workers, world_size=1, rank=0, seed=0, distributed=False,
)
transform = open_clip.image_transform(size, is_train=True, mean=mean, std=std)
data = get_wds_dataset(args, transform, is_train=True, epoch=0, tokenizer=open_clip.get_tokenizer("ViT-B-32"))
turn = 0
def epoch():
    global turn
    data.set_epoch(turn)
    turn += 1
    samples = 0
    for images, texts in data.dataloader:
        assert images.dtype == torch.float32 and images.shape[1:] == (3, size, size) and texts.shape[1:] == (77,)
        samples += len(images)
    return samples
serve(epoch)
"""
)


def ours(folder: Path, count: int, threads: int) -> None:
    """Our side."""
    import open_clip
    import torch

    from curate.pretrain.data.dataset import SubsetDataset
    from curate.pretrain.data.loader import Loader
    from curate.pretrain.data.tokenizer import OpenClipTokenizer
    from curate.pretrain.data.transform import normalised
    from curate.shards.shard import Shard

    torch.set_num_threads(1)
    shards = [Shard(p.stem, str(p), str(p.with_suffix(".parquet"))) for p in sorted(folder.glob("*.tar"))]
    dataset = SubsetDataset(shards)
    tokenizer = OpenClipTokenizer(open_clip.get_tokenizer("ViT-B-32"), 77)
    loader = Loader(dataset, tokenizer, (SIZE, SIZE), BATCH, count * 1000, 0, cache_mb=0, threads=threads)
    batches = loader.batches()
    space: dict[str, Any] = {}
    exec(SERVE, space)

    images: torch.Tensor | None = None

    def epoch() -> int:
        nonlocal images
        samples = 0
        while samples < count:
            batch = next(batches)
            images = normalised(batch.images, MEAN, STD, images)
            tokens = torch.from_numpy(batch.tokens[batch.caption])
            assert (*images.shape[1:], *tokens.shape[1:]) == (3, SIZE, SIZE, 77)
            samples += len(images)
        return samples

    space["serve"](epoch)


class Side:
    """A process of one side."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(self) -> dict[str, float]:
        """Load an epoch."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a side ended with status {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()


def floor(folder: Path) -> dict[str, float]:
    """Milliseconds of CPU per picture of the steps that cannot be left out, each alone."""
    import simplejpeg

    from curate.pretrain.data.jpeg_crop import crop_into, open_source
    from curate.shards.tar import TarReader

    tar = TarReader(str(sorted(folder.glob("*.tar"))[0]))
    bodies = [members["jpg"] for _, members in tar.samples()]
    memory, out = np.empty(1 << 22, np.uint8), np.empty((SIZE, SIZE, 3), np.uint8)

    def whole(body: bytes) -> None:
        source = open_source(body)
        crop_into(source, (0, 0, source.height, source.width), out)

    works = {
        "decode_ms": lambda body: simplejpeg.decode_jpeg(body, "RGBX", buffer=memory),
        "decode_and_crop_ms": whole,
    }
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(5):
        for name, work in works.items():
            begun = time.process_time()
            for body in bodies:
                work(body)
            found[name].append((time.process_time() - begun) / len(bodies) * 1e3)
    return {name: statistics.median(values) for name, values in found.items()}


def mixing(n: int = 200_000, per_shard: int = 10_000) -> dict[str, dict[str, float]]:
    """How well our order mixes, and that of a shuffle buffer of 5,000 samples."""
    import shuffle_quality

    from curate.pretrain.data import order

    ours = order.positions(0, n, 0, n)
    theirs = shuffle_quality.buffered_order(n, per_shard, 0)
    measures = (shuffle_quality.spread, shuffle_quality.apart)
    return {
        side: {measure.__name__: measure(found) for measure in measures}
        for side, found in (("ours", ours), ("buffer_5000", theirs))
    }


def open_clip_python() -> Path:
    """An interpreter with the webdataset that open_clip's training asks for, and everything else from here."""
    python = peers.venv("open_clip-training", WEBDATASET)
    paths = sysconfig.get_paths()
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = python.parent.parent / "lib" / version / "site-packages"
    (site / "here.pth").write_text("\n".join(dict.fromkeys((paths["purelib"], paths["platlib"]))) + "\n")
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer pictures and rounds")
    parser.add_argument("--workers", type=int, default=2, help="their processes, our threads")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        folder, count, threads = json.loads(options.side)
        return ours(Path(folder), count, threads)
    count, rounds = (BATCH * 8, 3) if options.quick else (BATCH * 16, 9)
    python = open_clip_python()
    with tempfile.TemporaryDirectory() as temporary:
        folder, shards = Path(temporary), 8
        write_shards(folder, count, shards)
        pattern = f"{folder}/{{00000..{shards - 1:05d}}}.tar"
        args = repr((pattern, count, BATCH, options.workers, SIZE, MEAN, STD))
        me = [sys.executable, __file__, "--side"]
        sides = {
            "open_clip": Side([str(python), "-c", THEIRS, args]),
            "ours": Side([*me, json.dumps([temporary, count, options.workers])]),
            "ours_no_threads": Side([*me, json.dumps([temporary, count, 0])]),
        }
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for r in range(rounds + 1):
            for name, side in sides.items():
                turn = side.turn()
                if r:
                    turns[name].append(turn)
        for side in sides.values():
            side.close()
        least = floor(folder)
    cost = {name: [turn["cpu"] / turn["samples"] * 1e3 for turn in found] for name, found in turns.items()}
    rate = {name: statistics.median(t["samples"] / t["wall"] for t in found) for name, found in turns.items()}
    ratios = [a / b for a, b in zip(cost["open_clip"], cost["ours"], strict=True)]
    result: dict[str, Any] = {
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_without_threads": statistics.median(
            a / b for a, b in zip(cost["open_clip"], cost["ours_no_threads"], strict=True)
        ),
        "cpu_ms_per_sample": {name: statistics.median(values) for name, values in cost.items()},
        "samples_per_s_and_core": {name: 1e3 / statistics.median(values) for name, values in cost.items()},
        "samples_per_s": rate,
        "floor": least,
        "shuffle": mixing(),
    }
    for name, values in cost.items():
        print(f"{name:16} {statistics.median(values):6.3f} ms of CPU per sample   {rate[name]:7.0f} samples/s")
    print(f"decoding alone   {least['decode_ms']:6.3f} ms   decoding and cropping {least['decode_and_crop_ms']:.3f} ms")
    for side, measures in result["shuffle"].items():
        print(f"order {side:12} " + "   ".join(f"{name} {value:.3f}" for name, value in measures.items()))
    print(f"ratio {result['ratio']:.2f} (least {result['ratio_least']:.2f})")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
