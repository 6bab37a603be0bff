import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageCms

from curate.shards.images.image import ImageError, ImageOptions, decode_rgb, process


def picture(width: int = 96, height: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 15) * np.cos(y / 11)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def saved(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def refused(body: bytes) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        process(body, ImageOptions())
    return caught.value.code, caught.value.detail


def mean_error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def gray_profile(gamma: float) -> bytes:
    """A minimal ICC profile of gray pictures with a power curve."""

    def tag(kind: bytes, data: bytes) -> bytes:
        return (kind + bytes(4) + data).ljust((8 + len(data) + 3) // 4 * 4, b"\0")

    text = b"gray\0"
    tags = {
        b"desc": tag(b"desc", struct.pack(">I", len(text)) + text + bytes(78)),
        b"wtpt": tag(b"XYZ ", struct.pack(">iii", 63190, 65536, 54061)),
        b"kTRC": tag(b"curv", struct.pack(">IH", 1, round(gamma * 256))),
    }
    table, data, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(data), len(value))
        data += value
    header = struct.pack(">I4sI4s4s4s", at + len(data), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    header = header.ljust(36, b"\0") + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">iii", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + data


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_gray_profiles_are_converted(kind: str) -> None:
    """Linear light 0.2140 is sRGB 0.5: level 55 of a linear file is level 128."""
    image = Pillow.new("L", (32, 32), 55)
    pixels = decode_rgb(saved(image, kind, icc_profile=gray_profile(1.0)))
    assert pixels.shape == (32, 32, 3)
    assert np.abs(pixels.astype(int) - 128).max() <= 2
    small = process(saved(image, kind, icc_profile=gray_profile(1.0)), ImageOptions(size=16))
    assert np.abs(np.asarray(Pillow.open(io.BytesIO(small.data))).astype(int) - 128).max() <= 3


def test_a_profile_of_another_kind_of_picture_is_ignored() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    gray = Pillow.new("L", (16, 16), 55)
    assert set(np.unique(decode_rgb(saved(gray, "JPEG", icc_profile=srgb)))) == {55}
    colour = Pillow.fromarray(picture())
    plain = decode_rgb(saved(colour, "PNG"))
    assert np.array_equal(decode_rgb(saved(colour, "PNG", icc_profile=gray_profile(1.0))), plain)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("size", [96, 12])
def test_cmyk_at_full_and_reduced_size(kind: str, size: int) -> None:
    image = Pillow.fromarray(picture(384, 256)).convert("CMYK")
    body = saved(image, kind, **({"quality": 95} if kind == "JPEG" else {}))
    stored = process(body, ImageOptions(size=size, encode="png"))
    expected = image.convert("RGB").resize((stored.width, stored.height), Pillow.Resampling.BICUBIC)
    assert stored.width == size
    assert mean_error(np.asarray(Pillow.open(io.BytesIO(stored.data))), np.asarray(expected)) < 2.5


def test_a_translucent_picture_resized_lies_on_white() -> None:
    """Colours under full transparency must not bleed into what is seen."""
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:, :, 1] = 255  # green, invisible on the left
    rgba[:, 32:] = (200, 0, 0, 255)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        data = process(saved(Pillow.fromarray(rgba), kind, **options), ImageOptions(size=16, encode="png")).data
        pixels = np.asarray(Pillow.open(io.BytesIO(data))).astype(int)
        assert np.abs(pixels[:, :6] - 255).max() <= 1
        assert np.abs(pixels[:, 10:] - [200, 0, 0]).max() <= 1
        assert (pixels[:, :, 1] <= pixels[:, :, 0] + 2).all()  # white to red: never greener than red


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"])
def test_tiff_compressions(compression: str | None) -> None:
    image = Pillow.fromarray(picture())
    if compression == "group4":
        image = image.convert("1")
    expected = np.asarray(image.convert("RGB"))
    assert mean_error(decode_rgb(saved(image, "TIFF", compression=compression)), expected) < 4


def tiled_tiff(tiles: list[np.ndarray], width: int, height: int, side: int) -> bytes:
    """RGB, uncompressed, tiles in rows."""
    data = b"".join(tile.tobytes() for tile in tiles)
    offsets = [1000 + i * side * side * 3 for i in range(len(tiles))]
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 600),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
        (322, 4, 1, side),
        (323, 4, 1, side),
        (324, 4, len(tiles), 700),
        (325, 4, len(tiles), 800),
    ]
    body = bytearray(b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)))
    body += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    body = body.ljust(1000, b"\0")
    struct.pack_into("<3H", body, 600, 8, 8, 8)
    struct.pack_into(f"<{len(tiles)}I", body, 700, *offsets)
    struct.pack_into(f"<{len(tiles)}I", body, 800, *[side * side * 3] * len(tiles))
    return bytes(body) + data


def test_tiled_tiff() -> None:
    pixels = picture(32, 16)
    body = tiled_tiff([np.ascontiguousarray(pixels[:, :16]), np.ascontiguousarray(pixels[:, 16:])], 32, 16, 16)
    assert np.array_equal(decode_rgb(body), pixels)


def test_run_length_bmp_and_32_bits() -> None:
    """Four red and two blue pixels, then a delta of one row; what is skipped has the palette's first colour."""
    palette = bytes([0, 255, 0, 0]) + bytes([0, 0, 255, 0]) + bytes([255, 0, 0, 0]) + bytes(253 * 4)
    data = b"\x04\x01\x02\x02\0\0\x06\x01\0\1"
    sizes = struct.pack("<IIIIHHIIIIII", 1078, 40, 6, 2, 1, 8, 1, len(data), 0, 0, 256, 0)
    body = b"BM" + struct.pack("<IHH", 1078 + len(data), 0, 0) + sizes + palette + data
    pixels = decode_rgb(body)
    assert pixels[1].tolist() == [[255, 0, 0]] * 4 + [[0, 0, 255]] * 2
    assert pixels[0].tolist() == [[255, 0, 0]] * 6
    assert np.array_equal(decode_rgb(saved(Pillow.fromarray(picture()).convert("RGBA"), "BMP")), picture())


def jpeg() -> bytearray:
    return bytearray(saved(Pillow.fromarray(picture()), "JPEG", quality=90))


def test_kinds_of_jpeg_that_are_not_read() -> None:
    body = jpeg()
    at = body.index(b"\xff\xc0")
    for marker, detail in ((0xC9, "arithmetic JPEG"), (0xC3, "lossless or hierarchical JPEG")):
        body[at + 1] = marker
        assert refused(bytes(body)) == ("unsupported", detail)
    body = jpeg()
    body[at + 4] = 12
    assert refused(bytes(body)) == ("unsupported", "JPEG of 12 bits")


def test_other_kinds_that_are_not_read_are_named() -> None:
    assert refused(saved(Pillow.fromarray(picture()), "ICO")) == ("unsupported", "ico")
    assert refused(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)) == ("unsupported", "heic")
    assert refused(b"8BPS\0\1" + bytes(100)) == ("unsupported", "psd")
    assert refused(b"%PDF-1.7\n" + bytes(100)) == ("not_image", "pdf")


def test_blemishes_outside_of_the_picture_do_no_harm() -> None:
    body = bytes(jpeg())
    plain = decode_rgb(body)
    numbered = b"\xff\xe2\0\x20ICC_PROFILE\0\x01\x03" + bytes(16)
    blemished = {
        "stray bytes between segments": body[:20] + bytes(7) + body[20:],
        "fill bytes": body[:2] + b"\xff" * 9 + body[2:],
        "a profile of which parts are missing": body[:20] + numbered + body[20:],
        "an unknown version": body.replace(b"JFIF\0\x01\x01", b"JFIF\0\x05\x01"),
        "padding at the end": body[:-2] + bytes(99) + body[-2:],
    }
    for name, other in blemished.items():
        assert other != body, name
        assert np.array_equal(decode_rgb(other), plain), name


def test_blemishes_do_not_hide_a_missing_part() -> None:
    """Half of the coded picture is gone, but there is an end marker, and padding before it."""
    body = bytes(jpeg())
    start = body.index(b"\xff\xda")
    half = start + (len(body) - start) // 2
    for padding in (b"", bytes(40), b"\xff" * 40, b"stray bytes " * 9):
        broken = body[:half] + padding + b"\xff\xd9"
        assert refused(broken)[0] in ("truncated", "corrupt")
        assert refused(broken[:20] + bytes(7) + broken[20:])[0] in ("truncated", "corrupt")


@pytest.mark.parametrize("offset", range(0, 256, 5))
def test_the_high_byte_is_at_most_one_level_off(offset: int) -> None:
    """What Pillow keeps of 16-bit colour, against scaling by 1/257 and rounding."""
    values = np.arange(offset, 65536, 256)
    assert np.abs((values >> 8) - np.round(values / 257)).max() <= 1
