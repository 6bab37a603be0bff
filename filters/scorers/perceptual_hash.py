"""`perceptual_hash`: 64 bits that stay nearly the same when a picture is resized or compressed again.

`phash`: signs of the 8 x 8 lowest DCT coefficients of 32 x 32 grey pixels against their median (Zauner 2010, in the
variant of the ImageHash package, the bits and their order included). `dhash`: whether grey rises from pixel to pixel of
a 9 x 8 picture (Krawetz 2013; ImageHash's too). Near copies are rows whose hashes differ in few bits.

`invariant` makes the hash equal for a picture and its mirror image (`flip`), or for all eight ways to turn and mirror
it (`rotations`): the smallest of the hashes. Turning a picture negates or transposes its DCT coefficients, so the eight
cost one transform. These are computed from grey in floating point, rounded only at the end, and so are not ImageHash's;
coefficients that symmetry makes zero are zero here, where rounding noise decides ImageHash's bits. Price: when a near
copy's smallest hash is that of another orientation, the two are far apart, so a search for near copies misses a few
that it finds with one fixed orientation.

The column is uint64 with nulls. Read it as Arrow (`Part.arrow`), never through floats: a float64 holds 53 bits.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...shards.image_pass import Picture
from ..base import SCORERS, PixelReader, PixelScorer
from ..pixel_reader import ColumnReader

Method = Literal["phash", "dhash"]
Invariant = Literal["none", "flip", "rotations"]

SIDE, LOW = 32, 8
GRAIN = 0.125  # of a DCT coefficient, which is of the order of 1000; float32 noise of the resize stays below 0.01
ODD = (-1.0) ** np.arange(LOW)  # what mirroring does to the coefficients of an axis


@SCORERS.register
class PerceptualHash(PixelScorer):
    """64-bit perceptual hash as uint64."""

    type: Literal["perceptual_hash"] = "perceptual_hash"
    method: Method = Field(
        default="phash", description="`phash`: by frequencies, the more robust. `dhash`: by gradients, the cheaper."
    )
    invariant: Invariant = Field(
        default="none",
        description="What leaves the hash unchanged: nothing, mirroring (`flip`), or turning by 90 degrees and "
        "mirroring (`rotations`).",
    )

    def reader(self, name: str, state: Any = None) -> PixelReader:
        return HashReader(name, self.method, self.invariant)


class HashReader(ColumnReader):
    def __init__(self, name: str, method: Method, invariant: Invariant) -> None:
        super().__init__({name: pa.uint64()})
        self.method: Method = method
        self.invariant: Invariant = invariant

    def prepare(self, picture: Picture) -> Any:
        return (perceptual_hash(picture.rgb, self.method, self.invariant),)


def perceptual_hash(rgb: np.ndarray, method: Method = "phash", invariant: Invariant = "none") -> int:
    """Hash of an ``(h, w, 3) uint8`` picture: the 64 bits as a number, as ImageHash's hexadecimal text reads."""
    bits = phash_bits(rgb, invariant) if method == "phash" else dhash_bits(rgb, invariant)
    return int(np.packbits(bits.reshape(-1, LOW * LOW), axis=1).view(">u8").min())  # the first bit is the highest


def phash_bits(rgb: np.ndarray, invariant: Invariant) -> np.ndarray:
    """``(k, 8, 8) bool``, of the k = 1, 2 or 8 orientations."""
    from scipy.fft import dct

    pixels = _grey(rgb, (SIDE, SIDE), invariant != "none")
    low = np.asarray(dct(dct(pixels.astype(np.float64), axis=0), axis=1))[:LOW, :LOW]
    if invariant != "none":
        low = np.rint(low / GRAIN)
    turned = {
        "none": lambda: low[None],
        "flip": lambda: np.stack([low, low * ODD]),
        "rotations": lambda: _eight(low),
    }[invariant]()
    middle = np.sort(turned.reshape(-1, LOW * LOW), axis=1)[:, LOW * LOW // 2 - 1 : LOW * LOW // 2 + 1]
    return turned > middle.mean(axis=1)[:, None, None]  # the median, at a quarter of np.median's cost


def _eight(low: np.ndarray) -> np.ndarray:
    mirrored = [low, low * ODD, low * ODD[:, None], low * ODD * ODD[:, None]]
    return np.stack([*mirrored, *(c.T for c in mirrored)])


def dhash_bits(rgb: np.ndarray, invariant: Invariant) -> np.ndarray:
    """``(k, 8, 8) bool``, of the k = 1, 2 or 8 orientations."""
    exact = invariant != "none"
    grids = [_grey(rgb, (LOW + 1, LOW), exact)]
    if exact:
        if invariant == "rotations":
            grids.append(_grey(rgb, (LOW, LOW + 1), exact).T)  # turned by 90 degrees, its columns are rows
            grids += [grid[::-1] for grid in grids]
        grids += [grid[:, ::-1] for grid in grids]
        grids = [np.rint(grid / GRAIN) for grid in grids]
    grid = np.stack(grids)
    return grid[:, :, 1:] > grid[:, :, :-1]


def _grey(rgb: np.ndarray, size: tuple[int, int], exact: bool) -> np.ndarray:
    """Grey pixels of a size (width, height) by Lanczos: uint8 as ImageHash has them, or float32 if `exact`."""
    from PIL import Image

    grey = Image.fromarray(rgb).convert("L")
    if exact:
        grey = grey.convert("F")
    return np.asarray(grey.resize(size, Image.Resampling.LANCZOS))
