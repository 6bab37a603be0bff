import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageCms

from curate.shards.images.image import ImageError, ImageOptions, process
from curate.shards.images.resize_mode import Resize, is_kept, scaled, square


def picture(width: int = 120, height: int = 80) -> Pillow.Image:
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 9) * np.cos(y / 7)]
    return Pillow.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def saved(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rotated(kind: str) -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return saved(picture(), kind, exif=exif)


EXTENSIONS = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tiff",
    "AVIF": "avif",
    "JPEG2000": "jp2",
}


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_originals_are_kept_to_the_byte(kind: str) -> None:
    body = saved(picture(), kind)
    image = process(body, ImageOptions(encode="original", size=16))
    assert image.data == body
    assert image.extension == EXTENSIONS[kind]
    assert (image.width, image.height, image.original_width, image.original_height) == (120, 80, 120, 80)


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_originals_are_kept_only_when_they_are_whole(kind: str) -> None:
    rng = np.random.default_rng(0)
    body = saved(Pillow.fromarray(rng.integers(0, 256, (80, 120, 3), np.uint8)), kind)
    with pytest.raises(ImageError) as caught:
        process(body[: len(body) * 2 // 3], ImageOptions(encode="original"))
    assert caught.value.code in ("truncated", "corrupt")


def test_a_kept_original_is_not_rotated_but_its_upright_size_is_known() -> None:
    image = process(rotated("JPEG"), ImageOptions(encode="original"))
    assert (image.width, image.height) == (120, 80)
    assert (image.original_width, image.original_height) == (80, 120)


@pytest.mark.parametrize(("kind", "encode"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_reencoding_only_if_needed(kind: str, encode: Any) -> None:
    options = ImageOptions(encode=encode, reencode="if_needed")
    body = saved(picture(), kind, **({"compress_level": 1} if kind == "PNG" else {}))
    assert process(body, options).data == body
    assert process(body, ImageOptions(encode=encode)).data != body
    assert process(body, options.model_copy(update={"resize": "center_crop", "size": 80})).data == body

    def changed(body: bytes, **update: Any) -> bool:
        image = process(body, options.model_copy(update=update))
        return image.data != body and image.extension == encode

    other = next(name for name in ("JPEG", "PNG") if name != kind)
    assert changed(saved(picture(), other))
    assert changed(body, size=60)
    assert changed(body, only_if_bigger=False)
    assert changed(rotated(kind))
    assert changed(saved(picture(), kind, icc_profile=swapped()))
    srgb = saved(picture(), kind, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert process(srgb, options).data == srgb
    if kind == "JPEG":
        assert changed(saved(picture().convert("L"), kind))
        assert changed(saved(picture().convert("CMYK"), kind))
    else:
        translucent = picture().convert("RGBA")
        translucent.putalpha(100)
        assert changed(saved(translucent, kind))
        assert changed(saved(picture(), kind, save_all=True, append_images=[picture().rotate(90)]))


def swapped() -> bytes:
    """sRGB with red and blue exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    data = bytearray(profile)
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_several_pictures_are_counted_and_can_be_refused(kind: str) -> None:
    pages = [Pillow.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    body = saved(pages[0], kind, save_all=True, append_images=pages[1:])
    assert process(body, ImageOptions()).frames == 3
    assert process(body, ImageOptions(encode="original")).data == body
    with pytest.raises(ImageError) as caught:
        process(body, ImageOptions(animated="refuse"))
    assert caught.value.code == "animated"
    single = saved(pages[0], kind)
    assert process(single, ImageOptions(animated="refuse")).frames == 1


def test_png_levels_change_size_and_not_pixels() -> None:
    body = saved(picture(), "JPEG")
    low, high = (process(body, ImageOptions(encode="png", png_level=level)).data for level in (0, 9))
    assert len(low) > 2 * len(high)
    assert np.array_equal(np.asarray(Pillow.open(io.BytesIO(low))), np.asarray(Pillow.open(io.BytesIO(high))))


def test_interpolation_is_what_it_says() -> None:
    rng = np.random.default_rng(3)
    noise = Pillow.fromarray(rng.integers(80, 176, (300, 400, 3), np.uint8))  # no clipping
    references = {"lanczos": Pillow.Resampling.LANCZOS, "catmull_rom": Pillow.Resampling.BICUBIC}

    def error(interpolation: str, reference: str, size: int) -> float:
        options = {"size": size, "only_if_bigger": False, "encode": "png", "interpolation": interpolation}
        data = process(saved(noise, "PNG"), ImageOptions(**options)).data  # type: ignore[arg-type]
        ours = np.asarray(Pillow.open(io.BytesIO(data))).astype(float)
        theirs = np.asarray(noise.resize((ours.shape[1], ours.shape[0]), references[reference]))
        return float(np.abs(ours - theirs).mean())

    for size in (100, 800):
        for name in references:
            assert error(name, name, size) < 0.5
            assert all(error(name, other, size) > 0.7 for other in references if other != name)
    assert error("auto", "catmull_rom", 100) < 0.5
    assert error("auto", "lanczos", 800) < 0.5


def test_sizes_never_depend_on_the_way_there() -> None:
    """The scaled decode of a JPEG and the plain one of a PNG give the same size and nearly the same picture."""
    image = picture(1600, 1100)
    for size in (100, 300, 700):
        pair = [
            process(saved(image, kind, **extra), ImageOptions(size=size, resize="keep_ratio", encode="png"))
            for kind, extra in (("PNG", {}), ("JPEG", {"quality": 97, "subsampling": 0}))
        ]
        assert (pair[0].width, pair[0].height) == (pair[1].width, pair[1].height)
        a, b = (np.asarray(Pillow.open(io.BytesIO(image.data))).astype(int) for image in pair)
        assert np.abs(a - b).mean() < 1.5


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.integers(1, 1024),
    st.sampled_from(["keep_ratio", "keep_ratio_largest", "center_crop", "border"]),
)
def test_sizes_of_every_mode(width: int, height: int, size: int, resize: Resize) -> None:
    inner = resize in ("keep_ratio", "center_crop")
    columns, rows = scaled(width, height, size, resize)
    assert (min if inner else max)(columns, rows) == size
    assert scaled(height, width, size, resize) == (rows, columns)
    whole = min(width, height) if inner else max(width, height)
    assert abs(columns - max(1, width * size / whole)) <= 0.5
    assert abs(rows - max(1, height * size / whole)) <= 0.5
    assert is_kept(width, height, size, resize, True) == (whole <= size)
    assert not is_kept(width, height, size, resize, False)
    if columns * rows <= 1_000_000 and resize in ("center_crop", "border"):
        assert square(np.zeros((rows, columns, 3), np.uint8), size, resize).shape == (size, size, 3)
