import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from curate.shards.images.blur import blurred, read_boxes
from curate.shards.images.image import ImageError, ImageOptions, process


def checked(width: int, height: int) -> np.ndarray:
    """Black and white squares of two pixels: nothing of it survives a blur."""
    y, x = np.mgrid[0:height, 0:width]
    return np.repeat((((x // 2 + y // 2) % 2) * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def saved(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB")).astype(int)


def contrast(pixels: np.ndarray) -> float:
    return float(pixels.astype(float).std())


def test_boxes_are_blurred_and_the_rest_is_not() -> None:
    pixels = checked(200, 100)
    result = blurred(pixels, [(0.25, 0.3, 0.5, 0.7)])
    assert contrast(result[30:70, 50:100]) < 8
    changed = np.flatnonzero((result != pixels).any(axis=(0, 2)))
    # The box is 50 wide: grown by 5, then softened over four sigmas of 5 pixels.
    assert 50 - 5 - 20 <= changed[0] <= 50 - 5
    assert 100 + 5 - 1 <= changed[-1] < 100 + 5 + 20
    assert np.array_equal(result[:, :20], pixels[:, :20])
    assert np.array_equal(result[:, 130:], pixels[:, 130:])
    assert contrast(pixels[30:70, 50:100]) > 120


def test_a_small_box_beside_a_large_one_keeps_no_detail() -> None:
    result = blurred(checked(400, 400), [(0.0, 0.0, 0.8, 0.8), (0.9, 0.9, 0.93, 0.93)])
    assert contrast(result[360:372, 360:372]) < 8


def test_flat_colours_stay_flat() -> None:
    flat = np.full((60, 80, 3), (10, 120, 240), np.uint8)
    assert np.array_equal(blurred(flat, [(0.1, 0.1, 0.9, 0.9)]), flat)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.tuples(*[st.floats(-1, 2, allow_nan=False)] * 4), max_size=4),
)
def test_any_boxes_within_reason(width: int, height: int, boxes: list[tuple[float, float, float, float]]) -> None:
    found = read_boxes(boxes)
    assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for x0, y0, x1, y1 in found)
    pixels = checked(width, height)
    result = blurred(pixels, found)
    assert result.shape == pixels.shape
    assert found or np.array_equal(result, pixels)


def test_odd_boxes() -> None:
    assert read_boxes(None) == read_boxes([]) == []
    assert read_boxes([[0.6, 0.7, 0.2, 0.1]]) == [(0.2, 0.1, 0.6, 0.7)]  # corners in any order
    assert read_boxes([[-0.2, 0.5, 0.4, 1.3]]) == [(0.0, 0.5, 0.4, 1.0)]  # cut off
    assert read_boxes([[0.5, 0.5, 0.5, 0.9], [1.2, 0, 1.5, 1]]) == []  # no area, outside
    for box in ([0, 0, 120, 80], [0, 0, 1], [0, 0, float("nan"), 1], [0, 0, None, 1], ["a", 0, 1, 1], 3, None):
        with pytest.raises(ImageError) as caught:
            process(saved(checked(8, 8)), ImageOptions(), [box])  # type: ignore[list-item]
        assert caught.value.code == "bad_boxes"


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_are_of_the_upright_picture(orientation: int) -> None:
    upright = checked(160, 120)
    stored = {1: upright, 3: np.rot90(upright, 2), 6: np.rot90(upright, 1), 8: np.rot90(upright, -1)}[orientation]
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    body = saved(np.ascontiguousarray(stored), exif=exif)
    pixels = opened(process(body, ImageOptions(resize="no", encode="png"), [[0, 0, 0.3, 0.3]]).data)
    assert pixels.shape == (120, 160, 3)
    assert contrast(pixels[:36, :48]) < 8
    assert np.array_equal(pixels[60:, 80:], upright[60:, 80:])


def test_boxes_are_blurred_before_the_crop_and_the_border() -> None:
    body = saved(checked(400, 200))
    options = {"size": 200, "encode": "png"}
    square = ImageOptions(resize="center_crop", only_if_bigger=False, **options)
    cropped = opened(process(body, square, [[0.25, 0, 0.5, 1]]).data)
    assert cropped.shape == (200, 200, 3)
    assert contrast(cropped[:, :100]) < 8
    assert contrast(cropped[:, 150:]) > 100
    padded = opened(process(saved(checked(200, 100)), ImageOptions(resize="border", **options), [[0, 0, 1, 1]]).data)
    assert padded.shape == (100, 200, 3)  # not bigger: left alone, but blurred
    assert contrast(padded) < 8
    square = ImageOptions(resize="border", only_if_bigger=False, **options)
    padded = opened(process(saved(checked(400, 200)), square, [[0, 0, 1, 1]]).data)
    assert (padded[:50] == 255).all()
    assert (padded[150:] == 255).all()
    assert 100 < padded[50:150].mean() < 155


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("options", [{"encode": "original"}, {"reencode": "if_needed", "resize": "no"}])
def test_an_original_with_boxes_is_never_kept(kind: str, options: dict[str, str]) -> None:
    body = saved(checked(96, 64), kind)
    image = process(body, ImageOptions(**options), [[0, 0, 1, 1]])
    assert image.data != body
    assert contrast(opened(image.data)) < 12
    if "encode" in options:
        assert image.extension == {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "jpg"}[kind]
