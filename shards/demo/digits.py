"""The demo's pictures: scikit-learn's 1,797 real digit scans, split once for ever, rendered as small photos.

The scans are 8x8 counts of inked pixels (UCI "Optical recognition of handwritten digits", bundled with
scikit-learn). `split` divides the *scans*, so that no rendering of a test scan is ever in the pool or among the trusted
pairs; it does not depend on the run's seed, so numbers from different runs can be compared. `render` draws one scan as
a photo of ink on paper. The price of using real scans: their writers are not recorded, so the same hands
are in every split.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...errors import DataError
from ..evalsets.write import write_evalset
from .captions import WORDS

SCANS_DIGEST = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
"""SHA-256 of the scans and labels as uint8: what the splits and every recorded number belong to."""

EVAL_TEMPLATES = (
    "a photo of the digit {c}",
    "a handwritten {c}",
    "the number {c} written by hand",
    "this picture shows the digit {c}",
    "someone wrote the number {c}",
)
MIN_SIZE, MAX_SIZE = 32, 64  # sides of a rendering, pixels

_SIZES = {"test": 450, "train": 200, "trusted": 300, "pool": 847}
_SPLIT_SEED = 20_240_101
_EVAL_SEED = 20_240_102


class Scans(NamedTuple):
    """All scans: ``images (1797, 8, 8) uint8`` with 0 = paper and 16 = ink, ``labels (1797,) int64``."""

    images: np.ndarray
    labels: np.ndarray


@functools.cache
def scans() -> Scans:
    """The scans that come with scikit-learn.

    Raises:
        DataError: the installed scikit-learn brings other data than the splits were made for.
    """
    from sklearn.datasets import load_digits

    flat, target = load_digits(return_X_y=True)
    images = np.asarray(flat).reshape(-1, 8, 8).astype(np.uint8)
    labels = np.asarray(target).astype(np.int64)
    digest = hashlib.sha256(images.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    if digest != SCANS_DIGEST:
        raise DataError(
            f"scikit-learn's digits are not the expected 1,797 scans (SHA-256 {digest}); install 1.5 to 1.x"
        )
    return Scans(images, labels)


def random(*key: int) -> np.random.Generator:
    """Generator of the stream named by `key`, the same on every machine and in any order of calls."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((len(key), *key))))


@functools.cache
def _split() -> dict[str, np.ndarray]:
    labels = scans().labels
    rng = random(_SPLIT_SEED)
    # A scan's place is its rank in its class as a fraction: any run of places holds every class in proportion.
    place = np.empty(len(labels))
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(labels == digit))
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(list(_SIZES.values()))
    return {name: np.sort(part) for name, part in zip(_SIZES, np.split(order, ends[:-1]), strict=True)}


def split() -> dict[str, np.ndarray]:
    """Scan numbers of each split, ascending int64, disjoint and stratified by class, whatever the run's seed.

    ``test`` (450) is for the reported accuracy only; ``train`` (200) is the evaluation set's train split, for probes
    and for choices; ``trusted`` (300) makes the trusted pairs; ``pool`` (847) makes the web.
    """
    return {name: part.copy() for name, part in _split().items()}


def _sheet(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours of paper and ink, each ``(3,) float32`` in 0-1: dark on light, of any hue."""
    tint = np.asarray([rng.random(), rng.random(), rng.random()], np.float32)
    paper = 0.80 + 0.18 * tint
    hue = np.asarray([rng.random(), rng.random(), rng.random()], np.float32)
    ink = 0.45 * (hue - hue.min()) / max(float(np.ptp(hue)), 0.05) * rng.random() + 0.04
    return paper, ink


def render(scan: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw one scan as a small photo of handwriting.

    The stroke is the scan's ink coverage, turned (up to 6 degrees), scaled (0.92-1.04) and shifted a little, enlarged
    by cubic interpolation and cut at a soft threshold, so that pen strokes stay crisp at any size. Colours, pen
    width, light and grain differ per rendering.

    Args:
        scan: ``(8, 8)``, 0 = paper to 16 = ink.
        rng: everything random comes from it.
        size: side of the picture in pixels.

    Returns:
        ``(size, size, 3) uint8`` RGB.
    """
    angle, scale = np.deg2rad(12 * rng.random() - 6), 0.92 + 0.12 * rng.random()
    shift_x, shift_y = 0.6 * rng.random() - 0.3, 0.6 * rng.random() - 0.3  # in scan pixels
    pad = 4  # paper around the scan, so that no stroke is smeared along the border
    canvas = np.zeros((8 + 2 * pad, 8 + 2 * pad), np.float32)
    canvas[pad:-pad, pad:-pad] = scan / 16.0
    step = 9.0 / (scale * size)  # scan pixels per picture pixel
    cos, sin = np.cos(angle) * step, np.sin(angle) * step
    centre, half = 4 + pad, size / 2
    matrix = (
        cos, sin, centre + shift_x - (cos + sin) * half,
        -sin, cos, centre + shift_y + (sin - cos) * half,
    )  # fmt: skip
    drawn = Image.fromarray(canvas).transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    coverage = np.asarray(drawn, np.float32)

    width, softness = 0.36 + 0.14 * rng.random(), 0.10 + 0.08 * rng.random()
    ink_here = np.clip((coverage - width) / (2 * softness) + 0.5, 0, 1)
    ink_here = ink_here * ink_here * (3 - 2 * ink_here)  # smoothstep: an edge about two picture pixels wide

    paper, ink = _sheet(rng)
    across, down = 0.16 * rng.random() - 0.08, 0.16 * rng.random() - 0.08
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    light = 1 + across * ramp[None, :] + down * ramp[:, None]
    picture = paper + ink_here[:, :, None] * (ink - paper)
    picture = picture * light[:, :, None]
    grain = rng.random((size, size), dtype=np.float32) - 0.5
    picture += (0.02 + 0.05 * rng.random()) * grain[:, :, None]
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)


def random_size(rng: np.random.Generator) -> int:
    """Side of a rendering: `MIN_SIZE` to `MAX_SIZE` pixels."""
    return int(rng.integers(MIN_SIZE, MAX_SIZE + 1))


def encode(picture: np.ndarray, form: str, quality: int = 90) -> bytes:
    """Encode ``(h, w, 3) uint8`` as ``jpg``, ``png`` or ``webp``; quality 100 of webp is lossless."""
    file = io.BytesIO()
    image = Image.fromarray(picture)
    if form == "jpg":
        image.save(file, "JPEG", quality=quality)
    elif form == "png":
        image.save(file, "PNG", compress_level=6)
    elif form == "webp":
        image.save(file, "WEBP", quality=quality, lossless=quality >= 100, method=2)
    else:
        raise ValueError(f"image form {form!r}; known: jpg, png, webp")
    return file.getvalue()


def held_out(name: str) -> Iterator[tuple[bytes, int]]:
    """The rendered scans of split ``test`` or ``train``: one lossless webp and its label each, always the same."""
    images, labels = scans()
    for scan in split()[name]:
        rng = random(_EVAL_SEED, int(scan))
        size = random_size(rng)
        yield encode(render(images[scan], rng, size), "webp", 100), int(labels[scan])


def write_digits_evalset(folder: str) -> None:
    """Write the held-out digits as an evaluation set: 450 test and 200 train pictures, the same in every run."""
    write_evalset(folder, WORDS, EVAL_TEMPLATES, {name: held_out(name) for name in ("test", "train")})
