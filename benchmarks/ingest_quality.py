"""How good the stored images of both sides are: PSNR against a full decode and Pillow's Lanczos, as they are stored.

The reference of an image is its original, decoded at full size and resized by Pillow with Lanczos-3 to the size at
which a side stored it; the stored file is decoded and compared with it, so the loss of the encoding counts too.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image


def stored_images(shards: Path, wanted: set[int]) -> dict[int, bytes]:
    """Stored files by the number of their original, of those `wanted`, from a folder of img2dataset's layout."""
    found: dict[int, bytes] = {}
    for table_path in sorted(shards.glob("*.parquet")):
        table = pq.read_table(table_path, columns=["key", "url"])
        numbers = {
            key: int(url.rpartition("/")[2].removesuffix(".jpg"))
            for key, url in zip(table["key"].to_pylist(), table["url"].to_pylist(), strict=True)
        }
        with tarfile.open(table_path.with_suffix(".tar")) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                number = numbers[key]
                if extension == "jpg" and number in wanted and number not in found:
                    file = tar.extractfile(member)
                    assert file is not None
                    found[number] = file.read()
    return found


def psnr(stored: bytes, original: bytes) -> float:
    """Decibels over all pixels and channels of RGB."""
    image = Image.open(io.BytesIO(stored)).convert("RGB")
    whole = Image.open(io.BytesIO(original)).convert("RGB")
    reference = whole.resize(image.size, Image.Resampling.LANCZOS)
    difference = np.asarray(image, np.float32) - np.asarray(reference, np.float32)
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def quality(ours: Path, theirs: Path, originals: list[bytes], sample: int) -> dict[str, Any]:
    """PSNR of both sides over the same `sample` images, evenly spread; the gain is ours minus theirs by image."""
    wanted = set(np.linspace(0, len(originals) - 1, min(sample, len(originals))).astype(int).tolist())
    sides = {"curate": stored_images(ours, wanted), "img2dataset": stored_images(theirs, wanted)}
    both = sorted(sides["curate"].keys() & sides["img2dataset"].keys())
    values = {name: np.array([psnr(files[i], originals[i]) for i in both]) for name, files in sides.items()}
    gain = values["curate"] - values["img2dataset"]
    sizes = [[Image.open(io.BytesIO(files[i])).size for i in both] for files in sides.values()]
    kilobytes = {name: np.mean([len(files[i]) for i in both]) / 1e3 for name, files in sides.items()}
    return {
        "images": len(both),
        **{f"{name}_mean_db": round(float(v.mean()), 3) for name, v in values.items()},
        **{f"{name}_median_db": round(float(np.median(v)), 3) for name, v in values.items()},
        **{f"{name}_kb": round(float(v), 2) for name, v in kilobytes.items()},
        "gain_mean_db": round(float(gain.mean()), 3),
        "gain_median_db": round(float(np.median(gain)), 3),
        "share_not_worse": round(float(np.mean(gain >= 0)), 3),
        "sizes_that_differ": sum(a != b for a, b in zip(*sizes, strict=True)),
    }
