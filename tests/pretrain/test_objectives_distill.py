"""Teachers against open_clip's DistillClipLoss and against definitions."""

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import DistillClipLoss

from curate.errors import ConfigError
from curate.pretrain.features import Features, TeacherFeatures
from curate.pretrain.objectives import options
from curate.pretrain.objectives.base import couples_samples
from curate.pretrain.objectives.clip import ClipObjective
from curate.pretrain.objectives.distill import DistillObjective
from curate.pretrain.objectives.weighted_sum import Sum
from curate.pretrain.processes.world import ALONE


def rows(n: int, d: int, seed: int, dtype=torch.float64) -> torch.Tensor:
    made = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(made, dim=1).to(dtype)


def student(n: int, dtype=torch.float64, **more) -> Features:
    image, text = (rows(n, 16, seed, dtype).requires_grad_() for seed in (1, 2))
    return Features(image, text, torch.tensor(12.0, dtype=dtype).requires_grad_(), 0, n, **more)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize(("n", "chunk"), [(1, 4), (17, 4), (17, 100)])
def test_similarities_equal_open_clips(n, chunk, dtype, tolerance):
    teacher = TeacherFeatures(rows(n, 8, 3, dtype), rows(n, 8, 4, dtype), scale=30.0)
    f = student(n, dtype, teachers=[teacher])
    _, expected = DistillClipLoss()(f.image, f.text, f.scale, teacher.image, teacher.text, torch.tensor(30.0))
    found = DistillObjective(0, "logits", chunk=chunk).terms(f, ALONE)["distill_0"]
    assert found.item() == pytest.approx(expected.item(), rel=tolerance)
    inputs = [f.image, f.text, f.scale]
    for ours, theirs in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        assert (ours - theirs).abs().max().item() <= tolerance * max(1.0, theirs.abs().max().item())


def test_similarities_of_captioned_samples_only():
    there = torch.tensor([True, False, True, True, False])
    teacher = TeacherFeatures(rows(5, 8, 3), rows(5, 8, 4), scale=30.0)
    found = DistillObjective(0, "logits").terms(student(5, captioned=there, teachers=[teacher]), ALONE)["distill_0"]
    fewer = TeacherFeatures(rows(5, 8, 3)[there], rows(5, 8, 4)[there], scale=30.0)
    f = student(5, teachers=[fewer])
    f.image, f.text, f.total = f.image[there], f.text[there], 3
    assert found.item() == pytest.approx(DistillObjective(0, "logits").terms(f, ALONE)["distill_0"].item(), rel=1e-14)


@pytest.mark.parametrize("groups", [2, 4])
def test_similarities_within_groups(groups):
    """The mean over equal groups of what each group alone would give."""
    teacher = TeacherFeatures(rows(8, 8, 3), rows(8, 8, 4), scale=30.0)
    f = student(8, teachers=[teacher])
    found = DistillObjective(0, "logits", groups=groups).terms(f, ALONE)["distill_0"]
    alone = []
    for start in range(0, 8, 8 // groups):
        part = slice(start, start + 8 // groups)
        _, loss = DistillClipLoss()(
            f.image[part], f.text[part], f.scale, teacher.image[part], teacher.text[part], torch.tensor(30.0)
        )
        alone.append(loss)
    assert found.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-13)


def test_features_by_hand():
    """Cosines 0.6 and 1: distances 0.4 and 0, their mean 0.2; squared 2 - 2 cos = 0.8 and 0."""
    own = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    teacher = TeacherFeatures(image=torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    f = Features(own, None, torch.tensor(1.0), 0, 2, teachers=[teacher])
    assert DistillObjective(0, "features").terms(f, ALONE)["distill_0"].item() == pytest.approx(0.2)
    assert DistillObjective(0, "features", "squared").terms(f, ALONE)["distill_0"].item() == pytest.approx(0.4)


def test_projected_features_of_both_sides():
    there = torch.tensor([True, False, True])
    projected = [(2 * rows(3, 5, seed)).requires_grad_() for seed in (5, 6)]
    teacher = TeacherFeatures(rows(3, 5, 7), rows(3, 5, 8), projected_image=projected[0], projected_text=projected[1])
    f = student(3, captioned=there, teachers=[teacher])
    found = DistillObjective(0, "features").terms(f, ALONE)["distill_0"]
    images = 1 - F.cosine_similarity(projected[0], teacher.image)
    texts = 1 - F.cosine_similarity(projected[1], teacher.text)
    assert found.item() == pytest.approx(((images.mean() + texts[there].mean()) / 2).item())
    found.backward()
    assert all(p.grad is not None and p.grad.any() for p in projected)
    assert not projected[1].grad[1].any()


def test_a_projection_of_images_alone_compares_images_alone():
    teacher = TeacherFeatures(rows(3, 5, 7), rows(3, 5, 8), projected_image=rows(3, 5, 5))
    found = DistillObjective(0, "features").terms(student(3, teachers=[teacher]), ALONE)["distill_0"]
    assert found.item() == pytest.approx((1 - F.cosine_similarity(rows(3, 5, 5), rows(3, 5, 7))).mean().item())


def test_what_needs_the_whole_batch_at_once():
    per_sample, similarities = DistillObjective(0, "classes"), DistillObjective(0, "logits")
    assert not couples_samples(per_sample)
    assert couples_samples(similarities)
    assert couples_samples(ClipObjective())
    assert not couples_samples(Sum([(1.0, per_sample)]))
    assert couples_samples(Sum([(1.0, per_sample), (0.5, similarities)]))


def test_classes_by_definition():
    own, others = (4 * rows(6, 10, seed) for seed in (1, 2))
    f = student(6, logits=own.requires_grad_(), teachers=[TeacherFeatures(logits=others)])
    found = DistillObjective(0, "classes", temperature=2.0).terms(f, ALONE)["distill_0"]
    p, q = (F.softmax(x / 2, dim=1) for x in (others, own))
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    assert found.item() == pytest.approx(expected.item())
    same = student(6, logits=others, teachers=[TeacherFeatures(logits=others)])
    assert DistillObjective(0, "classes").terms(same, ALONE)["distill_0"].item() == 0


@pytest.mark.parametrize(
    ("kind", "teacher", "message"),
    [
        ("logits", TeacherFeatures(image=rows(3, 16, 1)), "no text tower"),
        ("features", TeacherFeatures(image=rows(3, 9, 1)), "a projection between them"),
        ("features", TeacherFeatures(logits=rows(3, 9, 1)), "no features"),
        ("classes", TeacherFeatures(logits=rows(3, 9, 1)), "the same"),
        ("classes", TeacherFeatures(image=rows(3, 9, 1)), "classification head"),
    ],
)
def test_teachers_that_do_not_fit(kind, teacher, message):
    f = student(3, logits=rows(3, 4, 0), teachers=[teacher])
    with pytest.raises(ConfigError, match=message):
        DistillObjective(0, kind).terms(f, ALONE)


def test_several_teachers_from_options():
    made = options.PairLosses.model_validate(
        {
            "contrastive": None,
            "teachers": [{"weight": 2.0}, {"kind": "features", "distance": "squared"}, {"kind": "classes"}],
        }
    )
    teachers = [
        TeacherFeatures(rows(4, 8, 3), rows(4, 8, 4), scale=30.0),
        TeacherFeatures(rows(4, 16, 5), rows(4, 16, 6)),
        TeacherFeatures(logits=rows(4, 3, 7)),
    ]
    f = student(4, logits=rows(4, 3, 8), teachers=teachers)
    terms = options.contrastive_objective(made).terms(f, ALONE)
    assert list(terms) == ["distill_0", "distill_1", "distill_2"]
    assert terms["distill_0"].item() == pytest.approx(
        2 * DistillObjective(0, "logits").terms(f, ALONE)["distill_0"].item()
    )
