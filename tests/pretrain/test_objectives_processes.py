"""The same batch on 1, 2 and 3 processes: same loss, same gradients. Run as a script, this file is one of them."""

import os
import subprocess
import sys
import traceback
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from curate.pretrain.features import Features, Labels, TeacherFeatures
from curate.pretrain.objectives.base import Objective
from curate.pretrain.objectives.clip import ClipObjective
from curate.pretrain.objectives.distill import DistillObjective
from curate.pretrain.objectives.matryoshka import MatryoshkaObjective
from curate.pretrain.objectives.siglip import SigLipObjective
from curate.pretrain.objectives.supcon import SupConObjective
from curate.pretrain.objectives.weighted_sum import Sum
from curate.pretrain.processes.world import ALONE, World, joined

BATCHES = ((1, torch.float64), (2, torch.float64), (13, torch.float64), (13, torch.float32))
CAPTIONS = ("all", "some", "late", "none")
LEARNED = ("image", "text", "scale", "bias", "logits", "projected")


def objectives() -> dict[str, Objective]:
    teachers: list[tuple[float, Objective]] = [
        (0.5, DistillObjective(0, "logits", chunk=4)),
        (2.0, DistillObjective(1, "features")),
        (1.0, DistillObjective(2, "classes", temperature=3.0)),
    ]
    supcon = SupConObjective(0.2, chunk=3)
    return {
        "clip": ClipObjective(),
        "clip chunks": ClipObjective(chunk=3),
        "clip 2 groups": ClipObjective(groups=2),
        "clip 3 groups": ClipObjective(groups=3, chunk=2),
        "clip 5 groups": ClipObjective(groups=5),
        "siglip gather": SigLipObjective(chunk=4),
        "siglip ring": SigLipObjective(chunk=4, exchange="ring"),
        "siglip both": SigLipObjective(exchange="both"),
        "siglip 2 groups": SigLipObjective(groups=2),
        "siglip 5 groups": SigLipObjective(groups=5, chunk=2),
        "matryoshka": MatryoshkaObjective(ClipObjective(), (2, 5), (0.5, 0.25)),
        "distill groups": DistillObjective(0, "logits", groups=5),
        "supcon": supcon,
        "all": Sum([(1.0, SigLipObjective(exchange="ring")), *teachers, (0.3, supcon)]),
    }


def whole_batch(total: int, captions: str, dtype: torch.dtype) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(total)

    def rows(width: int) -> torch.Tensor:
        return F.normalize(torch.randn(total, width, generator=generator, dtype=torch.float64), dim=1).to(dtype)

    batch: dict[str, Any] = {"image": rows(8), "text": rows(8), "logits": 3 * rows(4), "projected": 2 * rows(5)}
    batch |= {"teacher_image": rows(6), "teacher_text": rows(6), "teacher_features": rows(5), "classes": 3 * rows(4)}
    batch["scale"], batch["bias"] = torch.tensor(9.0, dtype=dtype), torch.tensor(-2.5, dtype=dtype)
    place = torch.arange(total)
    there = {"all": place >= 0, "some": place % 3 != 1, "late": place >= total // 2, "none": place < 0}[captions]
    batch["captioned"] = there
    batch["text"][~there] = torch.nan  # must not be looked at
    batch["teacher_text"][~there] = torch.nan
    samples = torch.arange(total).repeat_interleave(torch.arange(total) % 3)  # 0, 1 or 2 labels each
    batch["label_rows"], batch["label_ids"] = samples, torch.randint(0, 3, (len(samples),), generator=generator)
    return batch


def part_of(batch: dict[str, Any], world: World) -> Features:
    """One process's features, as a network would make them; leaves."""
    total = len(batch["image"])
    start, stop = world.share(total)
    learned = {name: batch[name][start:stop].clone() if batch[name].ndim else batch[name].clone() for name in LEARNED}
    for tensor in learned.values():
        tensor.requires_grad_()
    there = batch["captioned"][start:stop]
    inside = (batch["label_rows"] >= start) & (batch["label_rows"] < stop)
    labels = Labels(batch["label_rows"][inside] - start, batch["label_ids"][inside])
    teachers = [
        TeacherFeatures(batch["teacher_image"][start:stop], batch["teacher_text"][start:stop], scale=4.0),
        TeacherFeatures(batch["teacher_features"][start:stop], projected_image=learned.pop("projected")),
        TeacherFeatures(logits=batch["classes"][start:stop]),
    ]
    return Features(
        **learned,
        first=start,
        total=total,
        captioned=None if there.all() else there,
        labels=labels if len(labels.rows) else None,
        teachers=teachers,
    )


def outcome(objective: Objective, features: Features, world: World) -> dict[str, torch.Tensor]:
    """Loss, loss without gradient, and gradients, of this process."""
    loss = torch.stack(list(objective.terms(features, world).values())).sum()
    loss.backward()
    with torch.no_grad():
        without = torch.stack(list(objective.terms(features, world).values())).sum()
    leaves = {name: getattr(features, name) for name in LEARNED if name != "projected"}
    leaves["projected"] = features.teachers[1].projected_image
    gradients = {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in leaves.items()}
    return {"loss": loss.detach(), "without": without, **gradients}


def cases() -> list[tuple[str, int, str, torch.dtype]]:
    return [
        (name, total, captions, dtype) for name in objectives() for total, dtype in BATCHES for captions in CAPTIONS
    ]


@cache
def run(world: World) -> dict[Any, dict[str, torch.Tensor]]:
    made = objectives()
    return {case: outcome(made[case[0]], part_of(whole_batch(*case[1:]), world), world) for case in cases()}


def worker(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    with joined(rank, size, f"file://{folder}/meet", timeout_s=60) as world:
        torch.save(run(world), folder / f"{rank}.pt")


def in_forks(size: int, folder: Path) -> None:
    """`worker` in `size` children of this process, which has loaded torch once for all of them."""
    for rank in range(size):
        if os.fork() == 0:
            try:
                worker(rank, size, folder)
                os._exit(0)
            except Exception:  # noqa: BLE001  (a child must never run on into the parent's code)
                traceback.print_exc()
                os._exit(1)
    assert [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(size)] == [0] * size


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[int, Path]:
    """What each of 2 and of 3 processes found."""
    made = {size: tmp_path_factory.mktemp(f"world{size}") for size in (2, 3)}
    subprocess.run([sys.executable, __file__, *(str(folder) for folder in made.values())], check=True)
    return made


@pytest.fixture(scope="module", params=[2, 3])
def parts(request, folders) -> list[dict[Any, dict[str, torch.Tensor]]]:
    return [torch.load(folders[request.param] / f"{rank}.pt") for rank in range(request.param)]


@pytest.mark.parametrize("name", objectives())
def test_processes_together_equal_one(name, parts):
    for case, alone in run(ALONE).items():
        if case[0] != name:
            continue
        together = [part[case] for part in parts]
        tolerance = 1e-6 if case[3] == torch.float32 else 1e-13
        for key, expected in alone.items():
            own = [part[key] for part in together]
            found = torch.cat(own) if expected.ndim else torch.stack(own).sum()
            assert torch.isfinite(found).all(), (case, key)
            size = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
            assert (found - expected).abs().max().item() <= tolerance * size, (case, key)


def test_no_captions_no_loss():
    for (name, _, captions, _), found in run(ALONE).items():
        if captions == "none" and name.startswith(("clip", "siglip", "matryoshka", "distill")):
            assert all(not value.any() for value in found.values()), name


def test_samples_without_captions_count_as_if_they_were_not_there():
    for name in ("clip", "siglip gather", "matryoshka", "clip chunks"):
        objective = objectives()[name]
        batch = whole_batch(12, "some", torch.float64)
        there = batch["captioned"]
        found = outcome(objective, part_of(batch, ALONE), ALONE)
        fewer = replace(
            part_of(batch, ALONE),
            image=batch["image"][there].requires_grad_(),
            text=batch["text"][there].requires_grad_(),
            captioned=None,
            total=int(there.sum()),
        )
        expected = outcome(objective, fewer, ALONE)
        assert found["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-14)
        for side in ("image", "text"):
            assert torch.allclose(found[side][there], expected[side], rtol=0, atol=1e-14)
            assert not found[side][~there].any()


if __name__ == "__main__":
    for processes, where in zip((2, 3), sys.argv[1:], strict=True):
        in_forks(processes, Path(where))
