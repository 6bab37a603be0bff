"""CPU per image of decode, resize and encode, side by side with OpenCV as img2dataset uses it.

    python benchmarks/pixels.py [--json] [--quick]

Takes the photo-like JPEGs of `photographs` and the natural photographs that scikit-learn, and scikit-image if it is
installed, bring along; OpenCV lives in an environment of its own (`peers`). Both sides run in processes of their own,
in turn, round after round, one thread each; figures are medians over rounds of CPU milliseconds per image.

Each makes JPEGs of quality 95 whose shorter side is 256 (natural photographs: 128): OpenCV by full decode and
INTER_AREA, we by `curate.shards.images.image.process`, header and EXIF included. PSNR is of the resized pixels against
full decode and Pillow's Lanczos. The floor is entropy decoding (at 1/8 size) and encoding. With `--json` the last line
printed is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
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

OPENCV = ("numpy==2.4.6", "opencv-python-headless==4.14.0.94")  # of the major version that img2dataset asks for
SIZES = {"mix": 256, "natural": 128}
QUALITY = 95


# --- images


def natural() -> list[bytes]:
    """Photographs that installed packages bring along, as JPEGs."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    pictures = list(load_sample_images().images)
    try:
        from skimage import data
    except ImportError:
        pass
    else:
        pictures += [getattr(data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")]
    bodies = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=92)
        bodies.append(file.getvalue())
    return bodies * 10  # so that a round is more than the warming of caches


def target(width: int, height: int, size: int) -> tuple[int, int]:
    short = min(width, height)
    return (2 * width * size + short) // (2 * short), (2 * height * size + short) // (2 * short)


# --- the two sides, each in a process of its own that answers one line per round

Steps = dict[str, float]
Side = tuple[Callable[[bytes], tuple[np.ndarray, Steps]], Callable[[bytes], object]]  # by steps, and as a whole


def opencv(size: int) -> Side:
    import cv2  # type: ignore[import-not-found]

    cv2.setNumThreads(1)

    def run(body: bytes) -> tuple[np.ndarray, Steps]:
        clock = [time.process_time()]
        image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
        clock.append(time.process_time())
        wanted = target(image.shape[1], image.shape[0], size)
        resized = cv2.resize(image, wanted, interpolation=cv2.INTER_AREA)
        clock.append(time.process_time())
        cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        clock.append(time.process_time())
        return resized[:, :, ::-1], dict(zip(("decode", "resize", "encode"), np.diff(clock).tolist(), strict=True))

    return run, run


def ours(size: int) -> Side:
    from curate.shards.images.header import read_header
    from curate.shards.images.image import ImageOptions, process
    from curate.shards.images.pixels import decode, encode, set_right

    options = ImageOptions(size=size, resize="keep_ratio", only_if_bigger=False, quality=QUALITY)

    def run(body: bytes) -> tuple[np.ndarray, Steps]:
        clock = [time.process_time()]
        header = read_header(body)
        clock.append(time.process_time())
        wanted = target(header.width, header.height, size)
        pixels = set_right(decode(body, header, wanted))
        clock.append(time.process_time())
        encode(pixels, "jpg", options)
        clock.append(time.process_time())
        steps = dict(zip(("header", "decode+resize", "encode"), np.diff(clock).tolist(), strict=True))
        return pixels[:, :, :3], steps

    return run, lambda body: process(body, options)


def floor(size: int) -> Side:
    import simplejpeg

    def run(body: bytes) -> tuple[np.ndarray, Steps]:
        height, width = simplejpeg.decode_jpeg_header(body)[:2]
        columns, rows = target(width, height, size)
        clock = [time.process_time()]
        small = simplejpeg.decode_jpeg(body, "RGB", min_height=1, min_width=1, min_factor=2)
        clock.append(time.process_time())
        image = np.ascontiguousarray(np.resize(small, (rows, columns, 3)))
        start = time.process_time()
        simplejpeg.encode_jpeg(image, QUALITY, "RGB", "420")
        return image, {"entropy decoding": clock[1] - clock[0], "encode": time.process_time() - start}

    return run, run


SIDES = {"opencv": opencv, "ours": ours, "floor": floor}


def serve(side: str, folder: Path) -> None:
    """Answer each line ``NAME`` of a set with the mean seconds of each step; the first time, keep the pixels."""
    for line in sys.stdin:
        name = line.strip()
        bodies = pickle.loads((folder / f"{name}.pkl").read_bytes())
        run, whole = SIDES[side](SIZES[name])
        results = [run(body) for body in bodies]
        started = time.process_time()
        for body in bodies:
            whole(body)
        seconds = (time.process_time() - started) / len(bodies)
        kept = folder / f"{name}-{side}.npz"
        if not kept.exists():
            np.savez(kept, *[pixels for pixels, _ in results])
        means = {step: statistics.fmean(steps[step] for _, steps in results) for step in results[0][1]}
        print(json.dumps(means | {"whole": seconds}), flush=True)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * float(np.log10(255**2 / max(1e-9, float(np.mean((a.astype(np.float64) - b) ** 2)))))


def quality(folder: Path, name: str, side: str, bodies: list[bytes]) -> float:
    """Mean PSNR against full decode and Pillow's Lanczos."""
    from PIL import Image

    found = []
    with np.load(folder / f"{name}-{side}.npz") as pixels:
        for i, body in enumerate(bodies):
            image = Image.open(io.BytesIO(body)).convert("RGB")
            wanted = image.resize(target(*image.size, SIZES[name]), Image.Resampling.LANCZOS)
            found.append(psnr(pixels[f"arr_{i}"], np.asarray(wanted)))
    return statistics.fmean(found)


def floor_ms(steps: Steps) -> float:
    return steps["entropy decoding"] + steps["encode"]


def measure(rounds: int, sets: dict[str, list[bytes]]) -> dict[str, Any]:
    """Run both sides and the floor in turn; medians over rounds, in milliseconds."""
    from peers import venv

    peer = str(venv("opencv", OPENCV))
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="curate-bench-") as name:
        folder = Path(name)
        for key, bodies in sets.items():
            (folder / f"{key}.pkl").write_bytes(pickle.dumps(bodies))
        workers = {
            side: subprocess.Popen(
                [peer if side == "opencv" else sys.executable, __file__, "--serve", side, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for side in SIDES
        }
        for key, bodies in sets.items():
            times: dict[str, list[Steps]] = {side: [] for side in SIDES}
            for _ in range(rounds + 1):
                for side, worker in workers.items():
                    assert worker.stdin is not None
                    assert worker.stdout is not None
                    print(key, file=worker.stdin, flush=True)
                    times[side].append(json.loads(worker.stdout.readline()))
            steps = {
                side: {step: 1e3 * statistics.median(r[step] for r in found[1:]) for step in found[0]}
                for side, found in times.items()
            }
            pairs = zip(times["ours"][1:], times["opencv"][1:], strict=True)
            figures[key] = {
                "steps_ms": {side: {step: round(ms, 3) for step, ms in found.items()} for side, found in steps.items()},
                "ratio": round(statistics.median(our["whole"] / its["whole"] for our, its in pairs), 3),
                "floor_ratio": round(floor_ms(steps["floor"]) / steps["opencv"]["whole"], 3),
                "psnr_db": {side: round(quality(folder, key, side, bodies), 1) for side in ("ours", "opencv")},
            }
        for worker in workers.values():
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    parser.add_argument("--serve", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], Path(options.serve[1]))
        return
    from peers import cache  # not for the peer's side
    from photographs import load, photographs

    count, rounds = (40, 5) if options.quick else (200, 15)
    sets = {"mix": load(photographs(2000, cache()))[:: 2000 // count], "natural": natural()}
    sizes = np.array([len(body) for body in sets["mix"]]) / 1e3
    print(
        f"{count} images, {sizes.mean():.0f} KB (p10 {np.percentile(sizes, 10):.0f}, p50 {np.median(sizes):.0f}, "
        f"p90 {np.percentile(sizes, 90):.0f}), {rounds} rounds"
    )
    figures = measure(rounds, sets)
    for name, found in figures.items():
        print(f"\n{name}, shorter side {SIZES[name]}: CPU ms per image")
        for side, steps in found["steps_ms"].items():
            total = floor_ms(steps) if side == "floor" else steps["whole"]
            parts = ", ".join(f"{step} {ms:.2f}" for step, ms in steps.items() if step != "whole")
            print(f"  {side:7} {total:5.2f}   ({parts})")
        print(
            f"  ratio to OpenCV {found['ratio']:.2f} (floor {found['floor_ratio']:.2f}); PSNR against Lanczos "
            f"{found['psnr_db']['ours']:.1f} dB, OpenCV {found['psnr_db']['opencv']:.1f} dB"
        )
    if options.json:
        gain = figures["mix"]["psnr_db"]["ours"] - figures["mix"]["psnr_db"]["opencv"]
        print(json.dumps({"cpu_ratio": figures["mix"]["ratio"], "psnr_gain_db": round(gain, 1), "sets": figures}))


if __name__ == "__main__":
    main()
