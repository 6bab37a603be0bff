"""CPU per image of decode, resize and encode, side by side with OpenCV as img2dataset uses it.

    python benchmarks/pixels.py [--json] [--quick]

Makes its photo-like JPEGs itself (35 % of 640x480, the rest 300x400 to 1600x1200, mean 0.43 megapixels and 70 KB;
quality 85, 20 % progressive, 15 % 4:4:4, 20 % with EXIF), and takes the natural photographs that scikit-learn, and
scikit-image if it is installed, bring along. Makes a virtual environment with OpenCV in the cache folder, once, of the
major version that img2dataset asks for. Both sides run in processes of their own, in turn, round after round, one
thread each; figures are medians over rounds of CPU milliseconds per image.

Each makes JPEGs of quality 95 whose shorter side is 256 (natural photographs: 128): OpenCV by full decode and
INTER_AREA, we by `curate.shards.images.image.process`, header and EXIF included. PSNR is of the resized pixels against
full decode and Pillow's Lanczos. The floor is entropy decoding (at 1/8 size) and encoding. With `--json` the last line
printed is one JSON object.
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

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "curate-benchmarks"
SIZES = {"mix": 256, "natural": 128}
QUALITY = 95


# --- images


def fields(rng: np.random.Generator, count: int, power: float, side: int = 2048) -> list[np.ndarray]:
    """Noise with the spectrum of photographs, 1 / f**power, mean 0 and deviation 1."""
    distance = np.hypot(*np.meshgrid(np.fft.rfftfreq(side), np.fft.fftfreq(side)))
    distance[0, 0] = 1
    spectra = (np.fft.rfft2(rng.standard_normal((side, side))) / distance**power for _ in range(count))
    planes = [np.fft.irfft2(spectrum, s=(side, side)) for spectrum in spectra]
    return [(plane / plane.std()).astype(np.float32) for plane in planes]


def photo(rng: np.random.Generator, width: int, height: int, light: list, colour: list) -> np.ndarray:
    """Light, tints, soft-coloured discs with hard edges, and grain."""

    def crop(plane: np.ndarray) -> np.ndarray:
        top, left = rng.integers(0, plane.shape[0] - height), rng.integers(0, plane.shape[1] - width)
        part = plane[top : top + height, left : left + width]
        return part[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]

    shades = 45 * crop(light[rng.integers(len(light))])
    picture = np.stack([128 + shades + 18 * crop(colour[rng.integers(len(colour))]) for _ in range(3)], axis=-1)
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(12):
        radius = rng.uniform(0.03, 0.2) * min(width, height)
        inside = np.hypot(x - rng.uniform(0, width), (y - rng.uniform(0, height)) * rng.uniform(0.5, 2)) < radius
        picture[inside] = 0.4 * picture[inside] + 0.6 * rng.uniform(0, 255, 3)
    picture += rng.standard_normal((height, width, 1)) * rng.uniform(1.9, 2.6)
    return np.clip(picture, 0, 255).astype(np.uint8)


def mix(count: int, seed: int = 0) -> list[bytes]:
    """JPEGs of the workload in the docstring."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    light, colour = fields(rng, 3, 1.5), fields(rng, 3, 1.9)
    bodies = []
    for i in range(count):
        if i % 20 < 7:
            width, height = 640, 480
        else:
            scale = 4.0 ** rng.beta(1.3, 1.7)
            width, height = int(400 * scale), int(300 * scale)
            if rng.random() < 0.4:
                width, height = height, width
        exif = Image.Exif()
        if i % 5 == 1:
            exif[0x010F], exif[0x0110], exif[0x0112] = "Maker", "Model 5", 1
            exif.get_ifd(0x8769).update({0x8827: 400, 0x9003: "2020:01:01 10:10:10", 0x829A: 0.01})
        file = io.BytesIO()
        options = {"exif": exif} if len(exif) else {}
        image = Image.fromarray(photo(rng, width, height, light, colour))
        subsampling = 0 if i % 20 in (3, 9, 16) else 2
        image.save(file, "JPEG", quality=85, progressive=i % 5 == 2, subsampling=subsampling, **options)
        bodies.append(file.getvalue())
    return bodies


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


def peer_python() -> Path:
    """The interpreter of a virtual environment with OpenCV, made on first use."""
    home = CACHE / "opencv"
    python = home / "bin" / "python"
    if not (home / "done").exists():
        print(f"making {home} with opencv-python-headless")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "numpy", "opencv-python-headless<5"], check=True)
        (home / "done").touch()
    return python


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
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="curate-bench-") as name:
        folder = Path(name)
        for key, bodies in sets.items():
            (folder / f"{key}.pkl").write_bytes(pickle.dumps(bodies))
        workers = {
            side: subprocess.Popen(
                [str(peer_python()) if side == "opencv" else sys.executable, __file__, "--serve", side, name],
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
    count, rounds = (40, 5) if options.quick else (200, 15)
    sets = {"mix": mix(count), "natural": natural()}
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
