"""Peak memory of a worker through huge and hostile images, one after the other."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from curate.shards.images.image import ImageError, ImageOptions, process

SCRIPT = """
import pathlib, sys
from curate.shards.images.image import ImageError, ImageOptions, process
from curate.shards.images import pixels
def status(key):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(key))
base = status("VmRSS")
for path in sorted(pathlib.Path(sys.argv[1]).iterdir(), key=lambda p: int(p.name)):
    body, codes = path.read_bytes(), []
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    for options in (ImageOptions(), ImageOptions(resize="keep_ratio", only_if_bigger=False), ImageOptions(resize="no"),
                    ImageOptions(encode="original"), ImageOptions(size=4000, encode="webp")):
        try: process(body, options); codes.append("success")
        except ImageError as error: codes.append(error.code)
    print(path.name, status("VmHWM"), status("VmHWM") - base, *codes)
"""


def saved(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, *chunks: tuple[bytes, bytes], data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    every = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in every
    )


def flat_png(width: int, height: int, depth: int = 8, colour: int = 2, *chunks: tuple[bytes, bytes]) -> bytes:
    """All zeros, and really of that size."""
    packer = zlib.compressobj(1)
    row = bytes(1 + width * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * depth // 8)
    return png(
        width,
        height,
        depth,
        colour,
        *chunks,
        data=b"".join(packer.compress(row) for _ in range(height)) + packer.flush(),
    )


def zeros(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def tiff(width: int, height: int, data: bytes, **tags: int) -> bytes:
    """One strip or tile of gray, deflated."""
    entries = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1} | {int(k[1:]): v for k, v in tags.items()}
    place, length = (324, 325) if "t322" in tags else (273, 279)
    entries |= {place: 400, length: len(data)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4)).ljust(400, b"\0") + data


def bmp(width: int, height: int, data: bytes, coded: int = 1) -> bytes:
    sizes = struct.pack("<IIIIHHIIIIII", 54 + 1024, 40, width, height, 1, 8, coded, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHH", 1078 + len(data), 0, 0) + sizes + bytes(1024) + data


def gif_of(frames: int) -> bytes:
    image = Pillow.new("P", (500, 400))
    image.putpalette([9, 9, 9, 90, 90, 90])
    one = saved(image, "GIF")
    start = one.index(b",", 13 + 3 * (2 << (one[10] & 7)))
    return one[:-1] + one[start:-1] * (frames - 1) + b";"


def jpeg(width: int, height: int, **options: Any) -> bytes:
    return saved(Pillow.new("RGB", (width, height), (90, 20, 160)), "JPEG", **options)


def lying_jp2() -> bytes:
    body = bytearray(saved(Pillow.new("RGB", (64, 64)), "JPEG2000"))
    at = body.index(b"\xff\x4f\xff\x51")
    body[at + 8 : at + 16] = struct.pack(">II", 60_000, 60_000)
    return bytes(body)


def lying_avif() -> bytes:
    body = bytearray(saved(Pillow.new("RGB", (64, 64)), "AVIF"))
    at = body.index(b"ispe")
    body[at + 8 : at + 16] = struct.pack(">II", 13_000, 13_000)
    return bytes(body)


def scans(count: int) -> bytes:
    body = jpeg(3000, 3000, progressive=True)
    last = body.rindex(b"\xff\xda")
    return body[:-2] + body[last:-2] * count + body[-2:]


CASES: dict[str, tuple[Callable[[], bytes], str]] = {  # what it is, and what comes of it with default options
    "48 megapixel jpeg": (lambda: jpeg(8000, 6000), "success"),
    "32 megapixel progressive 4:4:4 jpeg": (lambda: jpeg(6500, 5000, progressive=True, subsampling=0), "success"),
    "60 megapixel progressive 4:4:4 jpeg": (
        lambda: jpeg(10_000, 6000, progressive=True, subsampling=0),
        "too_many_pixels",
    ),
    "jpeg of 150 more scans": (lambda: scans(150), "corrupt"),
    "cmyk jpeg": (lambda: saved(Pillow.new("CMYK", (7000, 5000)), "JPEG"), "success"),
    "48 megapixel png": (lambda: flat_png(8000, 6000), "success"),
    "48 megapixel rgba png": (lambda: flat_png(8000, 6000, 8, 6), "success"),
    "64 megapixel png": (lambda: flat_png(8000, 8000), "too_many_pixels"),
    "gray alpha png": (lambda: flat_png(5000, 4500, 8, 4), "success"),
    "16-bit rgba png": (lambda: flat_png(6000, 6000, 16, 6), "success"),
    "16-bit gray png": (lambda: flat_png(7000, 6000, 16, 0), "success"),
    "palette png": (lambda: flat_png(6000, 6000, 8, 3, (b"PLTE", bytes(768)), (b"tRNS", b"\0")), "too_many_pixels"),
    "palette png, smaller": (lambda: flat_png(5000, 4400, 8, 3, (b"PLTE", bytes(768)), (b"tRNS", b"\0")), "success"),
    "png with text of gigabytes": (
        lambda: flat_png(16, 16, 8, 2, *[(b"zTXt", b"a\0\0" + zeros(80 << 20))] * 10),
        "success",
    ),
    "png with a huge profile": (lambda: flat_png(16, 16, 8, 2, (b"iCCP", b"a\0\0" + zeros(80 << 20))), "success"),
    "png with more pixels than claimed": (lambda: png(16, 16, 8, 2, data=zeros(80 << 20)), "success"),
    "12 megapixel webp": (
        lambda: saved(Pillow.new("RGB", (4032, 3024)), "WEBP", lossless=True, quality=0, method=0),
        "success",
    ),
    "25 megapixel webp": (
        lambda: saved(Pillow.new("RGB", (5000, 5000)), "WEBP", lossless=True, quality=0, method=0),
        "too_many_pixels",
    ),
    "12 megapixel avif": (lambda: saved(Pillow.new("RGB", (4000, 3000)), "AVIF", speed=10), "success"),
    "lying avif": (lying_avif, "too_many_pixels"),
    "7 megapixel jpeg 2000": (lambda: saved(Pillow.new("RGB", (3000, 2300)), "JPEG2000"), "success"),
    "lying jpeg 2000": (lying_jp2, "corrupt"),
    "gif of 3000 frames": (lambda: gif_of(3000), "success"),
    "30 megapixel gif": (lambda: saved(Pillow.new("P", (6000, 5000)), "GIF"), "success"),
    "tiff with a tile of 3.6 gigabytes": (
        lambda: tiff(64, 64, zlib.compress(bytes(1 << 20)), t322=60_000, t323=60_000),
        "too_many_pixels",
    ),
    "tiff in one strip": (lambda: tiff(6000, 6000, zeros(36 << 20), t278=0xFFFFFFFF), "success"),
    "run-length bmp": (lambda: bmp(5100, 5000, (b"\xff\0" * 20 + b"\0\0") * 5000 + b"\0\1"), "success"),
    "run-length bmp with jumps": (lambda: bmp(60_000, 500, b"\0\2\xff\xff" * 100 + b"\0\1"), "success"),
    "bmp wider than any picture": (lambda: bmp(1 << 24, 1, b"\0\2\xff\xff" * 5), "too_many_pixels"),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int, list[str]]]:
    """Peak MB, MB above the start, and outcomes of every case, all in one worker's life."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks are read from Linux's /proc")
    folder = tmp_path_factory.mktemp("bodies")
    for i, (make, _) in enumerate(CASES.values()):
        (folder / str(i)).write_bytes(make())
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {name: (int(v[1]), int(v[2]), v[3:]) for name, v in zip(CASES, lines, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_no_image_needs_more_than_its_share(name: str, measured: dict[str, tuple[int, int, list[str]]]) -> None:
    peak, grown, codes = measured[name]
    assert codes[0] == CASES[name][1]
    assert set(codes) <= {"success", "too_many_pixels", "truncated", "corrupt"}
    assert grown < 230
    assert peak < 400


def test_memory_is_an_option() -> None:
    body = saved(Pillow.fromarray(np.zeros((1500, 1500, 3), np.uint8)), "PNG")
    assert process(body, ImageOptions()).width == 256
    with pytest.raises(ImageError, match="needs too much memory"):
        process(body, ImageOptions(max_memory=5_000_000))
