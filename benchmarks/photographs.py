"""Images for the ingest benchmarks: synthetic photographs with the mix of sizes, bytes and kinds that the web has.

`photographs` makes them from a seed, the same on every machine with the same Pillow, and keeps them in the cache. A
picture is a crop of one of a few large scenes (1/f noise as in natural images, with shaded shapes and hard edges), with
its own contrast, light and grain. The mix: 35 % are 640x480, the rest runs from 300x400 to 1600x1200 in both
orientations; quality 85, 20 % progressive, 15 % without chroma subsampling, 20 % with EXIF. `mix` says what came out.
"""

from __future__ import annotations

import io
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VERSION = 1
SCENES = 10
SCENE = (1900, 2000)  # height, width: the largest picture fits in either orientation, at many offsets
SKEW = 1.7  # of the sizes: larger = more small pictures


def _noise(rng: np.random.Generator, shape: tuple[int, int], power: float) -> np.ndarray:
    """Noise whose amplitude falls with frequency to the `power`; mean 0, standard deviation 1, float32."""
    height, width = shape
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.maximum(np.hypot(y, x), 1 / max(shape))
    field = np.fft.irfft2(spectrum / frequency**power, s=shape)
    return ((field - field.mean()) / field.std()).astype(np.float32)


def scene(seed: int) -> np.ndarray:
    """A large picture, ``(h, w, 3) float32`` around 0 with standard deviation about 1."""
    rng = np.random.default_rng([VERSION, seed])
    height, width = SCENE
    y, x = np.mgrid[:height, :width].astype(np.float32)
    luma = _noise(rng, SCENE, 1.25)
    chroma = [_noise(rng, SCENE, 1.7) * 0.3 for _ in range(2)]
    for _ in range(60):  # shapes that cover each other, with their own shading, texture and a hard edge
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        ry, rx = rng.uniform(30, 260, 2)
        turn = rng.uniform(0, np.pi)
        u, v = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn), (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        inside = (np.maximum(abs(u) / rx, abs(v) / ry) < 1) if rng.random() < 0.5 else (u / rx) ** 2 + (v / ry) ** 2 < 1
        slope, shade = rng.normal(0, 0.5, 2), rng.normal(0, 0.8)
        luma[inside] = 0.4 * luma[inside] + shade + slope[0] * u[inside] / rx + slope[1] * v[inside] / ry
        for plane in chroma:
            plane[inside] = 0.4 * plane[inside] + rng.normal(0, 0.4)
    red, blue = chroma
    return np.stack([luma + red, luma - 0.5 * red - 0.2 * blue, luma + blue], axis=-1)


@dataclass(frozen=True)
class Kind:
    """What a picture is to be like."""

    width: int
    height: int
    progressive: bool
    whole_chroma: bool
    exif: bool


def kinds(count: int) -> list[Kind]:
    """The mix: every share exact, and independent of the others."""
    rng = np.random.default_rng([VERSION, count])

    def ranks() -> np.ndarray:
        return (rng.permutation(count) + 0.5) / count

    common, progressive, chroma, exif = (ranks() < share for share in (0.35, 0.20, 0.15, 0.20))
    long = np.rint(400 * 4 ** (ranks() ** SKEW)).astype(int)
    short = np.clip(np.rint(long * rng.choice([2 / 3, 0.75, 0.75, 0.75, 0.8, 0.9], count)), 300, 1200).astype(int)
    upright = ranks() < 0.4
    width = np.where(common, 640, np.where(upright, short, long)).tolist()
    height = np.where(common, 480, np.where(upright, long, short)).tolist()
    return [
        Kind(*values) for values in zip(width, height, *(a.tolist() for a in (progressive, chroma, exif)), strict=True)
    ]


def _exif(rng: np.random.Generator) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Camera", f"Model {rng.integers(100)}"
    exif[0x0112] = 1
    exif[0x011A], exif[0x011B], exif[0x0128] = 72.0, 72.0, 2
    exif[0x0131], exif[0x0132] = "editor 1.0", f"2019:0{rng.integers(1, 9)}:12 10:20:30"
    more = exif.get_ifd(0x8769)
    more[0x829A], more[0x829D], more[0x8827] = 1 / int(rng.integers(30, 1000)), 2.8, int(rng.integers(100, 1600))
    more[0x9003], more[0x920A] = "2019:07:12 10:20:30", 35.0
    return exif.tobytes()


_SCENES: list[np.ndarray] = []


def _set_scenes(scenes: list[np.ndarray]) -> None:
    _SCENES[:] = scenes


def _picture(number: int, kind: Kind) -> bytes:
    """One JPEG file."""
    rng = np.random.default_rng([VERSION, SCENES, number])
    width, height = kind.width, kind.height
    big = _SCENES[number % SCENES]
    top, left = rng.integers(0, SCENE[0] - height + 1), rng.integers(0, SCENE[1] - width + 1)
    crop = big[top : top + height, left : left + width]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    detail = (350_000 / (width * height)) ** 0.55  # small pictures of the web are large ones made smaller
    contrast, grain = 34 * detail * np.exp(rng.normal(0, 0.22)), detail * rng.uniform(2.6, 5.2)
    pixels = rng.normal(118, 18) + contrast * crop + grain * rng.standard_normal((height, width, 1), dtype=np.float32)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
        file,
        "JPEG",
        quality=85,
        progressive=kind.progressive,
        subsampling=0 if kind.whole_chroma else 2,
        exif=_exif(rng) if kind.exif else b"",
    )
    return file.getvalue()


def photographs(count: int, folder: Path) -> Path:
    """A ``.npz`` with `count` files: ``data`` (bytes, one after the other) and ``ends``; made if it is not there."""
    path = folder / f"photographs-{VERSION}-{count}.npz"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(min(2, os.cpu_count() or 1)) as pool:
        scenes = pool.map(scene, range(SCENES))
    with multiprocessing.Pool(min(2, os.cpu_count() or 1), _set_scenes, (scenes,)) as pool:
        files = pool.starmap(_picture, enumerate(kinds(count)), chunksize=16)
    temporary = path.with_suffix(".new.npz")
    np.savez(temporary, data=np.frombuffer(b"".join(files), np.uint8), ends=np.cumsum([len(f) for f in files]))
    temporary.replace(path)
    return path


def load(path: Path) -> list[bytes]:
    """The files of `photographs`."""
    with np.load(path) as stored:
        data, ends = stored["data"].tobytes(), stored["ends"].tolist()
    return [data[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def mix(files: list[bytes]) -> dict[str, Any]:
    """What the files are like: sizes in pixels and KB, and the share of each kind."""
    images = [Image.open(io.BytesIO(file)) for file in files]
    pixels = np.array([i.width * i.height for i in images]) / 1e6
    kilobytes = np.array([len(f) for f in files]) / 1e3
    shares = {
        "640x480": [i.size == (640, 480) for i in images],
        "progressive": ["progressive" in i.info for i in images],
        "444": [i.layer[0][1:3] == i.layer[1][1:3] for i in images],  # type: ignore[attr-defined]
        "exif": ["exif" in i.info for i in images],
    }
    return {
        "images": len(files),
        "megapixels_mean": round(float(pixels.mean()), 3),
        "kb_mean": round(float(kilobytes.mean()), 1),
        **{f"kb_p{q}": round(float(np.percentile(kilobytes, q)), 1) for q in (10, 50, 90)},
        "smallest": min(i.size for i in images),
        "largest": max(i.size for i in images),
        **{f"share_{name}": round(float(np.mean(flags)), 3) for name, flags in shares.items()},
    }
