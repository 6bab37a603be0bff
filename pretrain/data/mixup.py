"""Mixup and cutmix: a picture becomes part another, and so does its label.

Partners are neighbours: samples 2i and 2i + 1 of the whole batch mix with each other, with the same share, so which
pictures meet is a function of the batch and not of the processes that work on it. The order is random already, so a
neighbour is as good a partner as any. A process whose run of samples cuts a pair in two loads the missing half as well
(`whole_pairs`): at most two pictures more per process and step, where random partners would have to travel between
processes. The last sample of an odd batch stays as it is.

Every pair draws its own share, kind and place from (stream, step, pair). Shares are multiples of 1/4096, which makes
blending exact in float32, the same on every device; pictures stay uint8, rounded half up.
Sources: Zhang et al., "mixup", ICLR 2018; Yun et al., "CutMix", ICCV 2019, equations 1 and 2, whose share is the area
that is left after the box was clipped at the border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .. import streams
from ..features import Labels
from .mix_options import MixOptions

STEPS = 4096  # shares are multiples of 1 / STEPS
_COLUMNS = 5  # uniform numbers per pair: mixed at all, kind, share, place of the box


def whole_pairs(first: int, stop: int, total: int) -> tuple[int, int]:
    """The least run of samples that holds samples ``first..stop-1`` of a batch of `total` and all their partners."""
    if first == stop:
        return first - first % 2, first - first % 2
    return first - first % 2, min(stop + stop % 2, total)


@dataclass(frozen=True)
class MixPlan:
    """What happens to each sample of a run of whole pairs, ``n`` samples.

    Attributes:
        partner: ``(n,) int64``, within the run; a sample that is not mixed is its own.
        keep: ``(n,) float32``, share of itself that a sample keeps, a multiple of 1/4096; 1 = not mixed.
        cut: ``(n,) bool``: the partner's part is a box, not a blend.
        box: ``(n, 4) int64``: top, left, bottom, right of it.
    """

    partner: np.ndarray
    keep: np.ndarray
    cut: np.ndarray
    box: np.ndarray


def plan(
    options: MixOptions,
    seed: int,
    step: int,
    first: int,
    may_mix: np.ndarray,
    image_size: tuple[int, int],
) -> MixPlan:
    """What to do with the samples ``first...`` of a step's batch; `first` is even.

    Args:
        may_mix: ``(n,) bool``; a pair is mixed if both may. Samples with captions, which a mixed picture would no
            longer show, or without labels must not.
        image_size: height and width, pixels.
    """
    if first % 2:
        raise ValueError(f"a run of whole pairs begins at an even sample, not at {first}")
    n = len(may_mix)
    height, width = image_size
    pairs = -(-n // 2)
    start = first // 2
    random = streams.uniform(streams.key(seed, "mix", step), start, start + pairs, _COLUMNS)
    both = np.zeros(pairs, bool)
    both[: n // 2] = may_mix[0 : n - n % 2 : 2] & may_mix[1::2]
    mixed = both & (random[:, 0] < options.probability) & (options.mixup > 0 or options.cutmix > 0)
    cut_share = options.cutmix_share if options.mixup > 0 and options.cutmix > 0 else float(options.cutmix > 0)
    cut = mixed & (random[:, 1] < cut_share)
    share = np.where(cut, _beta(options.cutmix, random[:, 2]), _beta(options.mixup, random[:, 2]))

    side = np.sqrt(1 - share)  # of the box, as a fraction of the picture's
    middle = random[:, 3:] * (height, width)
    half = side[:, None] * (height, width) / 2
    low = np.clip(np.rint(middle - half), 0, (height, width)).astype(np.int64)
    high = np.clip(np.rint(middle + half), 0, (height, width)).astype(np.int64)
    area = np.prod(high - low, 1) / (height * width)
    share = np.where(cut, 1 - area, share)
    keep = np.where(mixed, np.rint(share * STEPS) / STEPS, 1.0).astype(np.float32)

    partner = np.arange(n)
    swap = np.repeat(mixed, 2)[:n]
    partner[swap] ^= 1
    box = np.concatenate([low, high], 1)
    return MixPlan(partner, np.repeat(keep, 2)[:n], np.repeat(cut, 2)[:n], np.repeat(box, 2, 0)[:n])


def _beta(alpha: float, uniform: np.ndarray) -> np.ndarray:
    """Quantiles of Beta(alpha, alpha); 1 everywhere for alpha 0."""
    if alpha <= 0:
        return np.ones_like(uniform)
    from scipy.special import betaincinv

    return np.asarray(betaincinv(alpha, alpha, uniform))


def mix_images(images: torch.Tensor, mix: MixPlan) -> torch.Tensor:
    """Mixed pictures of a run of whole pairs, ``(n, 3, h, w) uint8``, on the device they are on; a new tensor."""
    changed = np.flatnonzero(mix.keep < 1)
    if not len(changed):
        return images.clone()
    out = images.clone()
    device = images.device

    def on_device(value: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(value)).to(device)

    blended = changed[~mix.cut[changed]]
    if len(blended):
        own, other = images[on_device(blended)].float(), images[on_device(mix.partner[blended])].float()
        keep = on_device(mix.keep[blended]).view(-1, 1, 1, 1)
        out[on_device(blended)] = (own * keep + other * (1 - keep) + 0.5).floor().to(torch.uint8)
    pasted = changed[mix.cut[changed]]
    if len(pasted):
        top, left, bottom, right = on_device(mix.box[pasted]).view(-1, 4, 1, 1, 1).unbind(1)
        y = torch.arange(images.shape[2], device=device).view(1, 1, -1, 1)
        x = torch.arange(images.shape[3], device=device).view(1, 1, 1, -1)
        inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
        at = on_device(pasted)
        out[at] = torch.where(inside, images[on_device(mix.partner[pasted])], images[at])
    return out


def mix_labels(labels: Labels, mix: MixPlan, shared: bool = True) -> Labels:
    """Labels of mixed pictures: a sample's own, times the share it kept, and its partner's, times the rest.

    Args:
        labels: of a run of whole pairs; `rows` count from its start.
        shared: the labels of one sample share its target (softmax), so they are scaled to sum to one before mixing;
            False keeps their weights (multi-label).
    """
    rows, ids = labels.rows.cpu().numpy(), labels.ids.cpu().numpy()
    weights = np.ones(len(rows), np.float32) if labels.weights is None else labels.weights.cpu().numpy()
    if shared and len(rows):
        weights = weights / np.bincount(rows, weights, minlength=len(mix.keep))[rows].astype(np.float32)
    keep = mix.keep[rows]
    given = mix.keep[rows] < 1  # what goes to the partner; pairs have equal shares
    all_rows = np.concatenate([rows, mix.partner[rows][given]])
    all_ids = np.concatenate([ids, ids[given]])
    all_weights = np.concatenate([weights * keep, (weights * (1 - keep))[given]])
    order = np.lexsort((all_ids, all_rows))
    device = labels.rows.device
    return Labels(
        torch.from_numpy(all_rows[order].astype(np.int64)).to(device),
        torch.from_numpy(all_ids[order].astype(np.int64)).to(device),
        torch.from_numpy(all_weights[order].astype(np.float32)).to(device),
    )


def part_of(labels: Labels, first: int, stop: int) -> Labels:
    """Labels of the samples ``first..stop-1`` alone, counted from `first`: a process's part of its pairs."""
    inside = (labels.rows >= first) & (labels.rows < stop)
    weights = None if labels.weights is None else labels.weights[inside]
    return Labels(labels.rows[inside] - first, labels.ids[inside], weights)
