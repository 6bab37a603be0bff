"""Thousands of broken images of every format, in a process of its own: an image or a reason, and no memory.

``CURATE_FUZZ_CASES`` sets how many cases are tried per format (default 600), ``CURATE_FUZZ_SEED`` which.
"""

import os
import subprocess
import sys

import pytest

SCRIPT = r"""
import io, os, struct, sys, zlib
import numpy as np
from PIL import Image as Pillow
from curate.shards.images.image import ImageError, ImageOptions, process
from curate.shards.images.error import CODES

kind, cases, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng([seed, *kind.encode()])
y, x = np.mgrid[0:24, 0:36]
picture = np.stack([x * 7, y * 10, (x * y) % 256], axis=-1).astype(np.uint8)


def bodies():
    rgb = Pillow.fromarray(picture)
    rgba = Pillow.fromarray(np.dstack([picture, picture[:, :, :1]]))
    exif = Pillow.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    made = {
        "JPEG": [(rgb, {"exif": exif}), (rgb, {"progressive": True}), (rgb.convert("L"), {}),
                 (rgb.convert("CMYK"), {})],
        "PNG": [(rgb, {"exif": exif}), (rgba, {}), (rgb.quantize(9), {"transparency": 2}), (rgba.convert("LA"), {}),
                (rgb, {"save_all": True, "append_images": [rgb.rotate(9)]})],
        "WEBP": [(rgb, {}), (rgba, {"lossless": True}), (rgb, {"save_all": True, "append_images": [rgb.rotate(9)]})],
        "GIF": [(rgb, {}), (rgb, {"save_all": True, "append_images": [rgb.rotate(9)]})],
        "BMP": [(rgb, {}), (rgb.quantize(9), {}), (rgba, {}), (rgb.convert("1"), {})],
        "TIFF": [(rgb, {"compression": c}) for c in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")],
        "AVIF": [(rgb, {"speed": 10}), (rgba, {"speed": 10})],
        "JPEG2000": [(rgb, {}), (rgba, {}), (rgb, {"tile_size": (16, 16)})],
    }[kind]
    for image, options in made:
        file = io.BytesIO()
        image.save(file, kind, **options)
        yield file.getvalue()


seeds = list(bodies())
HUGE = [0, 1, 255, 256, 0x7FFF, 0xFFFF, 0x10000, 60_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def broken(body):
    body = bytearray(body)
    for _ in range(int(rng.integers(1, 4))):
        way, at = int(rng.integers(7)), int(rng.integers(len(body) or 1))
        near = at if rng.random() < 0.5 else at % 64  # headers are the interesting part
        if way == 0:
            del body[at:]
        elif way == 1:
            for _ in range(int(rng.integers(1, 9))):
                if body:
                    body[int(rng.integers(len(body)))] = int(rng.integers(256))
        elif way in (2, 3):
            code = ("<I", ">I", "<H", ">H")[int(rng.integers(4))]
            limit = 0xFFFFFFFF if "I" in code else 0xFFFF
            raw = struct.pack(code, HUGE[int(rng.integers(len(HUGE)))] & limit)
            body[near : near + len(raw)] = raw
        elif way == 4:
            other, to = seeds[int(rng.integers(len(seeds)))], int(rng.integers(len(body) or 1))
            body[at:to] = other[at : at + int(rng.integers(200))]
        elif way == 5:
            body[at:at] = body[at : at + int(rng.integers(1, 100))] * int(rng.integers(1, 20))
        else:
            body[at : at + int(rng.integers(1, 60))] = b""
    if kind == "PNG" and rng.random() < 0.7:
        repaired, at = bytearray(body[:8]), 8  # right checksums, so that decoders look further
        while at + 12 <= len(body):
            length = min(int.from_bytes(body[at : at + 4], "big"), len(body) - at - 12)
            chunk = bytes(body[at + 4 : at + 8 + length])
            repaired += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
            at += 12 + length
        body = repaired
    return bytes(body)


def peak():
    if not os.path.exists("/proc/self/status"):
        return 0
    lines = open("/proc/self/status").read().splitlines()  # not getrusage: that begins with the parent's peak
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


choices = [ImageOptions(size=16), ImageOptions(size=48, only_if_bigger=False, resize="border", encode="png"),
           ImageOptions(encode="original"), ImageOptions(resize="no", reencode="if_needed")]
process(seeds[0], choices[0])
before, outcomes = peak(), {}
for case in range(cases):
    body = broken(seeds[case % len(seeds)])
    options = choices[int(rng.integers(len(choices)))]
    boxes = [[0.2, 0.2, 0.7, 0.6]] if rng.random() < 0.2 else None
    try:
        image = process(body, options, boxes)
        assert image.data and image.width >= 1 and image.height >= 1 and image.extension
        code = "success"
    except ImageError as error:
        code = error.code
        assert code in CODES and str(error).isprintable(), (code, error.detail)
    outcomes[code] = outcomes.get(code, 0) + 1
print(peak() - before if before else 0, len(outcomes), outcomes)
"""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_broken_images_give_an_image_or_a_reason(kind: str) -> None:
    cases, seed = os.environ.get("CURATE_FUZZ_CASES", "600"), os.environ.get("CURATE_FUZZ_SEED", "0")
    done = subprocess.run([sys.executable, "-c", SCRIPT, kind, cases, seed], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    grown, kinds = done.stdout.split()[:2]
    assert int(grown) < 230, done.stdout  # MB
    assert int(kinds) >= 3, done.stdout
