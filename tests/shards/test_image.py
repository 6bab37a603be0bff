import io
import json
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageCms, TiffImagePlugin

from curate.shards.images.exif import read_exif
from curate.shards.images.image import ImageError, ImageOptions, decode_rgb, process, read_size


def picture(width: int = 320, height: int = 240) -> np.ndarray:
    """A smooth picture without symmetry, ``(height, width, 3)``."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 30 * np.sin(x / 17) * np.cos(y / 23)
    channels = [40 + 150 * x / width, 40 + 150 * y / height, 200 - 120 * x * y / (width * height) + waves]
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


def saved(pixels: np.ndarray | Pillow.Image, kind: str = "JPEG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Pillow.Image) else Pillow.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 95} | options if kind == "JPEG" else options))
    return file.getvalue()


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(1e-9, float(np.mean((a.astype(float) - b.astype(float)) ** 2))))


def refused(body: bytes, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        process(body, ImageOptions(**options))
    assert str(caught.value).isprintable()
    return caught.value.code


KEEP = {"resize": "no", "encode": "png"}


# --- formats and colours


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "MPO"])
def test_every_format_gives_its_picture(kind: str) -> None:
    pixels = picture()
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 95}}.get(kind, {})
    body = saved(pixels, kind, **options)
    image = process(body, ImageOptions(**KEEP))
    assert (image.width, image.height, image.original_width, image.original_height) == (320, 240, 320, 240)
    assert psnr(opened(image.data), pixels) > 33
    assert read_size(body) == (320, 240)
    assert np.array_equal(decode_rgb(body), opened(image.data))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_variants(subsampling: int, progressive: bool) -> None:
    body = saved(picture(), subsampling=subsampling, progressive=progressive)
    assert psnr(decode_rgb(body), picture()) > 35


def test_gray_becomes_three_channels() -> None:
    gray = picture()[:, :, 0]
    for kind in ("JPEG", "PNG", "TIFF"):
        pixels = decode_rgb(saved(gray, kind))
        assert pixels.shape == (240, 320, 3)
        assert np.array_equal(pixels[:, :, 0], pixels[:, :, 2])
        assert psnr(pixels[:, :, 0], gray) > 40
    bilevel = Pillow.fromarray(gray > 100)
    assert set(np.unique(decode_rgb(saved(bilevel, "PNG")))) == {0, 255}


def png16(samples: np.ndarray) -> bytes:
    """A 16-bit PNG, gray (h, w), RGB or RGBA (h, w, c), written by hand."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    height, width = samples.shape[:2]
    rows = samples.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_are_scaled_not_clipped(channels: int) -> None:
    levels = np.array([0, 256, 257, 32768, 40000, 65534, 65535], np.uint16)
    samples = np.repeat(levels[None, :, None], channels, axis=2)
    if channels in (2, 4):
        samples[..., -1] = 65535
    pixels = decode_rgb(png16(samples[..., 0] if channels == 1 else samples))
    assert pixels.shape == (1, 7, 3)
    assert np.abs(pixels[0, :, 0].astype(float) - levels / 257).max() <= 1
    assert pixels[0, 0, 0] == 0
    assert pixels[0, -1, 0] == 255


def test_16_bit_gray_tiff() -> None:
    samples = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels = decode_rgb(saved(Pillow.fromarray(samples), "TIFF"))
    assert np.abs(pixels[:, :, 1].astype(float) - samples / 257).max() <= 0.5


def test_floats_have_no_scale() -> None:
    assert refused(saved(Pillow.fromarray(np.ones((8, 8), np.float32)), "TIFF")) == "unsupported"


def test_cmyk_has_right_colours() -> None:
    pixels = picture()
    for kind in ("JPEG", "TIFF"):
        body = saved(Pillow.fromarray(pixels).convert("CMYK"), kind)
        assert psnr(decode_rgb(body), pixels) > 35


def test_alpha_lies_on_white() -> None:
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[..., 3] = [0, 51, 102, 153, 204, 255]
    expected = np.array([255, 244, 233, 222, 211, 200])
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        pixels = decode_rgb(saved(rgba, kind, **options)).astype(int)
        assert np.abs(pixels[:, :, 0] - expected).max() <= 1
        assert np.abs(pixels[:, :, 1] - [255, 204, 153, 102, 51, 0]).max() <= 1
    gray_alpha = Pillow.fromarray(rgba).convert("LA")
    assert decode_rgb(saved(gray_alpha, "PNG"))[0, 0].tolist() == [255, 255, 255]
    assert decode_rgb(png16(rgba.astype(np.uint16) * 257))[0, 0].tolist() == [255, 255, 255]


def test_palettes_with_and_without_transparency() -> None:
    image = Pillow.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    assert decode_rgb(saved(image, "PNG"))[0, 0].tolist() == [0, 255, 0]
    assert decode_rgb(saved(image, "PNG", transparency=1))[0, 0].tolist() == [255, 255, 255]
    assert decode_rgb(saved(image, "GIF", transparency=1))[0, 0].tolist() == [255, 255, 255]


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Pillow.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "AVIF"):
        body = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, blue = decode_rgb(body)[15, 20].tolist()
        assert red > 240
        assert max(green, blue) < 16


# --- orientation and colour profiles


def with_orientation(pixels: np.ndarray, orientation: int, kind: str = "JPEG") -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return saved(pixels, kind, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(orientation: int, kind: str) -> None:
    upright = picture(90, 60)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    body = with_orientation(np.ascontiguousarray(stored), orientation, kind)
    image = process(body, ImageOptions(**KEEP))
    assert (image.width, image.height, image.original_width, image.original_height) == (90, 60, 90, 60)
    assert psnr(opened(image.data), upright) > 30
    assert Pillow.open(io.BytesIO(image.data)).getexif().get(0x0112) is None
    small = process(body, ImageOptions(size=30, encode="png"))
    assert (small.width, small.height) == (30, 20)
    if kind == "JPEG":
        assert read_size(body) == (90, 60)


def swapped_profile() -> bytes:
    """sRGB with red and blue exchanged: the tag table's rXYZ points where bXYZ did."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    data = bytearray(profile)
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_colour_profiles_are_converted_to_srgb(kind: str) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    options = {"lossless": True} if kind == "WEBP" else {}
    body = saved(red, kind, icc_profile=swapped_profile(), **options)
    image = process(body, ImageOptions(encode="png"))
    assert np.abs(opened(image.data)[32, 32].astype(int) - [0, 0, 255]).max() <= 3
    assert "icc_profile" not in Pillow.open(io.BytesIO(image.data)).info
    assert np.abs(decode_rgb(body)[32, 32].astype(int) - [0, 0, 255]).max() <= 3


def test_srgb_and_broken_profiles_change_nothing() -> None:
    plain = decode_rgb(saved(picture()))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"broken", srgb[:200]):
        assert np.array_equal(decode_rgb(saved(picture(), icc_profile=profile)), plain)


# --- sizes


@pytest.mark.parametrize(
    ("size", "resize", "only_if_bigger", "source", "expected"),
    [
        (256, "keep_ratio", True, (640, 479), (342, 256)),
        (256, "keep_ratio_largest", True, (640, 479), (256, 192)),
        (256, "keep_ratio_largest", True, (479, 640), (192, 256)),
        (256, "center_crop", True, (640, 479), (256, 256)),
        (256, "border", True, (640, 479), (256, 256)),
        (256, "no", True, (640, 479), (640, 479)),
        (256, "keep_ratio", True, (300, 200), (300, 200)),
        (256, "keep_ratio_largest", True, (256, 100), (256, 100)),
        (256, "center_crop", True, (300, 256), (300, 256)),
        (256, "border", True, (200, 100), (200, 100)),
        (256, "keep_ratio", False, (300, 200), (384, 256)),
        (256, "keep_ratio_largest", False, (100, 50), (256, 128)),
        (256, "center_crop", False, (100, 50), (256, 256)),
        (256, "border", False, (100, 50), (256, 256)),
        (64, "keep_ratio_largest", True, (1000, 3), (64, 1)),
    ],
)
def test_resize_modes(
    size: int, resize: Any, only_if_bigger: bool, source: tuple[int, int], expected: tuple[int, int]
) -> None:
    for kind in ("JPEG", "PNG"):
        options = ImageOptions(size=size, resize=resize, only_if_bigger=only_if_bigger)
        image = process(saved(picture(*source), kind), options)
        assert (image.width, image.height) == expected
        assert Pillow.open(io.BytesIO(image.data)).size == expected
        assert (image.original_width, image.original_height) == source


def test_border_is_white_and_crop_is_central() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 100:] = 255
    body = saved(pixels, "PNG")
    border = opened(process(body, ImageOptions(size=64, resize="border", encode="png")).data)
    assert (border[:16] == 255).all()
    assert (border[48:] == 255).all()
    assert (border[16:48, :28] == 0).all()
    crop = opened(process(body, ImageOptions(size=64, resize="center_crop", encode="png")).data)
    assert (crop[:, :28] == 0).all()
    assert (crop[:, 36:] == 255).all()


def test_scaled_decoding_stays_close_to_the_full_picture() -> None:
    pixels = picture(1600, 1200)
    body = saved(pixels)
    reference = Pillow.open(io.BytesIO(body)).convert("RGB").resize((200, 150), Pillow.Resampling.LANCZOS)
    image = process(body, ImageOptions(size=200, encode="png"))
    assert psnr(opened(image.data), np.asarray(reference)) > 45
    assert decode_rgb(body, at_least=200).shape == (600, 800, 3)
    assert decode_rgb(body, at_least=700).shape == (1200, 1600, 3)


@pytest.mark.parametrize("encode", ["jpg", "png", "webp"])
def test_encodings(encode: Any) -> None:
    image = process(saved(picture()), ImageOptions(size=128, encode=encode))
    kind = Pillow.open(io.BytesIO(image.data)).format
    assert kind == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[encode]
    assert image == process(saved(picture()), ImageOptions(size=128, encode=encode))


def test_small_and_narrow_images_are_refused_from_the_header() -> None:
    body = saved(picture(300, 100))
    assert refused(body, min_side=101) == "too_small"
    assert refused(body, max_aspect=2.9) == "aspect"
    assert refused(body, max_pixels=29_999) == "too_many_pixels"
    assert process(body, ImageOptions(min_side=100, max_aspect=3.0, max_pixels=30_000)).width == 256


# --- broken and hostile


def cuts(body: bytes) -> list[int]:
    return sorted({*range(0, len(body), max(1, len(body) // 60)), *range(len(body) - 12, len(body))})


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "gray", "CMYK", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_a_truncated_image_is_refused_and_never_filled_with_gray(kind: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (48, 64, 3), np.uint8)
    image = Pillow.fromarray(pixels)
    if kind in ("gray", "CMYK"):
        image = image.convert("L" if kind == "gray" else "CMYK")
    jpeg = kind in ("JPEG", "progressive", "gray", "CMYK")
    body = saved(image, "JPEG", progressive=kind == "progressive") if jpeg else saved(image, kind)
    whole = decode_rgb(body)
    for cut in cuts(body):
        try:
            pixels, code = decode_rgb(body[:cut]), ""
        except ImageError as error:
            code = error.code
        if cut <= len(body) - 30 or code:
            assert code in ("truncated", "corrupt", "not_image"), f"cut at {cut} of {len(body)}"
        else:
            assert np.array_equal(pixels, whole), f"cut at {cut} of {len(body)} gave other pixels"


def test_harmless_padding_in_a_jpeg_is_accepted() -> None:
    body = saved(picture())
    padded = body[:-2] + bytes(20) + body[-2:]
    assert np.array_equal(decode_rgb(padded), decode_rgb(body))
    assert np.array_equal(decode_rgb(body + b"trailing garbage"), decode_rgb(body))


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", ""),
        (b"<!DOCTYPE html><html>Not found", "html"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "svg"),
        (b'{"error": 1}', "json"),
        (b"plain text", ""),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", ""),
        (bytes(1000), ""),
    ],
)
def test_what_is_no_image(body: bytes, detail: str) -> None:
    with pytest.raises(ImageError) as caught:
        process(body, ImageOptions())
    assert (caught.value.code, caught.value.detail) == ("not_image", detail)


@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF"]), st.data())
def test_mutated_images_give_an_image_or_a_reason(kind: str, data: st.DataObject) -> None:
    body = bytearray(saved(picture(24, 16), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    code, pixels = "", 0
    try:
        image = process(bytes(body), ImageOptions(max_pixels=100_000))
        pixels = image.width * image.height
    except ImageError as error:
        code = error.code
    assert pixels <= 100_000
    assert code in ("", "not_image", "truncated", "corrupt", "too_many_pixels")


@given(st.binary(max_size=300))
def test_exif_of_any_bytes_does_not_raise(raw: bytes) -> None:
    for start in (b"", b"Exif\0\0II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        orientation, fields = read_exif(start + raw)
        assert orientation in range(1, 9)
        assert all(isinstance(value, str) and len(value) <= 256 for value in fields.values())


def test_exif_fields_are_text() -> None:
    exif = Pillow.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = 1
    details = exif.get_ifd(0x8769)
    details[0x829D] = TiffImagePlugin.IFDRational(14, 5)
    details[0x8827] = 400
    details[0x927C] = b"secret maker note"
    position = exif.get_ifd(0x8825)
    position[1] = "N"
    image = process(saved(picture(), exif=exif), ImageOptions())
    fields = json.loads(image.exif)
    assert fields["Image Make"] == "Maker"
    assert fields["Image Orientation"] == "1"
    assert fields["EXIF FNumber"] == "14/5"
    assert fields["EXIF ISOSpeedRatings"] == "400"
    assert fields["GPS GPSLatitudeRef"] == "N"
    assert not any("secret" in value for value in fields.values())
    assert process(saved(picture()), ImageOptions()).exif == "{}"


def png_bomb(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG that claims a huge size, its pixels all zero and compressed away."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width * {0: 1, 2: 3, 6: 4}[colour] * depth // 8)
    data = b"".join(packer.compress(row) for _ in range(min(height, 2000))) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d))
        for n, d in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def jpeg_bomb() -> bytes:
    body = bytearray(saved(picture(16, 16)))
    at = body.index(b"\xff\xc0")
    body[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(body)


def webp_bomb() -> bytes:
    body = bytearray(saved(picture(16, 16), "WEBP", save_all=True, append_images=[Pillow.new("RGB", (16, 16))]))
    body[24:30] = b"\xfe\x3f\0\xfe\x3f\0"
    return bytes(body)


BOMBS = {
    "gray png": png_bomb(30_000, 30_000),
    "rgb png": png_bomb(25_000, 25_000, 8, 2),
    "16-bit png": png_bomb(20_000, 20_000, 16, 6),
    "jpeg": jpeg_bomb(),
    "webp": webp_bomb(),
    "gif": b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;",
    "bmp": b"BM" + struct.pack("<IHHIIIIHHIIIIII", 100, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
}


def test_bombs_are_refused_from_the_header_and_cost_no_memory(tmp_path: Any) -> None:
    """Measured in a process of its own: peak memory before and after all bombs."""
    for name, body in BOMBS.items():
        assert refused(body) == "too_many_pixels", name
        (tmp_path / name).write_bytes(body)
    script = """
import sys, pathlib
from curate.shards.images.image import ImageError, ImageOptions, process
from curate.shards.images import pixels
def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
bodies = [p.read_bytes() for p in pathlib.Path(sys.argv[1]).iterdir()]
before = peak()
for body in bodies:
    for options in (ImageOptions(), ImageOptions(resize="keep_ratio", only_if_bigger=False)):
        try: process(body, options)
        except ImageError as error: assert error.code == "too_many_pixels", error
print((peak() - before) // 1024)
"""
    (tmp_path / "sliver").write_bytes(saved(Pillow.new("L", (20_000, 1)), "PNG"))
    sliver = (tmp_path / "sliver").read_bytes()
    assert refused(sliver, resize="keep_ratio", only_if_bigger=False) == "too_many_pixels"
    (tmp_path / "sliver").unlink()
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20  # MB


def test_a_progressive_jpeg_of_a_thousand_scans_is_refused() -> None:
    body = saved(picture(), progressive=True)
    scan = body.rindex(b"\xff\xda")
    assert refused(body[:-2] + body[scan:-2] * 300 + body[-2:]) == "corrupt"
