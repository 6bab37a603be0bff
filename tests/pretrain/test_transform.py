import numpy as np
import pytest
import torchvision
from cykooz_resizer import CpuExtensions, Resizer
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from curate.pretrain.data.preprocess import Preprocess
from curate.pretrain.data.transform import crop_and_resize, crops, for_evaluation


def photo(h: int, w: int, seed: int = 0) -> np.ndarray:
    """A picture with soft edges."""
    small = np.random.default_rng(seed).integers(0, 256, (max(2, h // 8), max(2, w // 8), 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC))


@settings(max_examples=60, deadline=None)
@given(
    h=st.integers(2, 150),
    w=st.integers(2, 150),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
    size=st.sampled_from([(32, 32), (224, 224), (24, 40)]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
def test_evaluation_input_equals_open_clips(h, w, mode, size, interpolation):
    image = photo(h, w)
    preprocess = Preprocess(size, (0.0,) * 3, (1.0,) * 3, interpolation, mode, fill_color=7)
    cfg = PreprocessCfg(size, "RGB", preprocess.mean, preprocess.std, interpolation, mode, 7)
    expected = image_transform_v2(cfg, is_train=False)(Image.fromarray(image))
    ours = for_evaluation(image, preprocess)
    assert ours.dtype == np.uint8
    assert np.array_equal(ours, (expected.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


@given(
    start=st.integers(0, 10**9),
    sizes=st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=20),
    low=st.floats(0.01, 1),
    cut=st.integers(0, 20),
)
def test_crops_lie_inside_and_depend_on_position_only(start, sizes, low, cut):
    h, w = np.array(sizes).T
    boxes = crops(11, start, h, w, (low, 1.0))
    top, left, ch, cw = boxes.T
    assert min(top.min(), left.min()) >= 0
    assert min(ch.min(), cw.min()) >= 1
    assert (top + ch <= h).all()
    assert (left + cw <= w).all()
    cut = min(cut, len(sizes) - 1)
    assert np.array_equal(crops(11, start + cut, h[cut:], w[cut:], (low, 1.0)), boxes[cut:])


@pytest.mark.parametrize(("h", "w"), [(60, 80), (200, 20), (64, 64)])
def test_crops_are_distributed_like_torchvisions(h, w):
    import torch

    count, scale = 3000, (0.5, 1.0)
    ours = crops(3, 0, np.full(count, h), np.full(count, w), scale)
    image = torch.empty(3, h, w)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draw = torchvision.transforms.RandomResizedCrop.get_params
        theirs = np.array([draw(image, list(scale), [3 / 4, 4 / 3]) for _ in range(count)])
    spread = theirs.std(0) + 1e-9
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 5 * spread * np.sqrt(2 / count) + 1e-6).all()
    assert np.allclose(ours.std(0), theirs.std(0), rtol=0.1, atol=1e-6)


def test_crop_and_resize_is_pillows_bicubic_within_two_grey_levels():
    resizer, out = Resizer(), np.empty((32, 32, 3), np.uint8)
    for h, w, box in [(64, 48, (3, 5, 50, 40)), (32, 32, (0, 0, 32, 32)), (20, 24, (1, 2, 18, 20))]:
        image = photo(h, w, seed=h)
        top, left, ch, cw = box
        crop_and_resize(resizer, image, np.array(box), out)
        part = Image.fromarray(image[top : top + ch, left : left + cw])
        expected = np.asarray(part.resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(expected - out).max() <= 2


def test_pixels_do_not_depend_on_the_processor():
    image, box = photo(90, 70), np.array((3, 4, 80, 60))
    plain, fast = Resizer(), Resizer()
    plain.cpu_extensions = CpuExtensions.none
    a, b = np.empty((32, 32, 3), np.uint8), np.empty((32, 32, 3), np.uint8)
    crop_and_resize(plain, image, box, a)
    crop_and_resize(fast, image, box, b)
    assert np.array_equal(a, b)
