"""Supervised contrastive loss: images of one class are each other's positives.

    loss = 1 / M  sum_i  -1 / |P(i)|  sum_{p in P(i)}  [ s_ip - log sum_{a != i} exp s_ia ]        s = image . image / t

Source: Khosla et al., "Supervised contrastive learning", NeurIPS 2020, equation 2 (L_out). The M anchors are the images
that have a positive, anywhere in the batch; one that has none still is a negative for others. Images without a label
are left out altogether: nobody knows what they are negatives of. With several labels, one in common makes a positive;
weights of labels are not looked at.

Value and gradient come from one pass over chunks of anchors, as in `in_batch_softmax.py`.
"""

from __future__ import annotations

import torch

from ..features import Features, Labels
from ..processes.world import World
from .known_gradient import known_gradient
from .pairs import absent, in_float32

_NONE = -1  # in place of a label


class SupConObjective:
    """The loss over the images of a batch that have labels.

    Args:
        temperature: t.
        chunk: anchors compared at a time; memory is ``chunk x batch`` floats, about four times.
    """

    name = "supcon"

    def __init__(self, temperature: float = 0.1, chunk: int = 1024) -> None:
        self.temperature, self.chunk = temperature, chunk

    def terms(self, features: Features, world: World) -> dict[str, torch.Tensor]:
        """``{"supcon": part}``, a mean over all processes' anchors."""
        image = in_float32(features.image)
        with_gradient = torch.is_grad_enabled()
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            ids = _table(features.labels, len(image), world, image.device)
            own = image.detach()
            others, other_ids = world.collect(own, features.total), world.collect(ids, features.total)
            columns = (other_ids[:, 0] == _NONE).to(own.dtype) * absent(own.dtype)
            labelled = (ids[:, 0] != _NONE).nonzero()[:, 0]
            anchors = torch.zeros((), device=own.device, dtype=own.dtype)
            value, d_own, d_others = torch.zeros_like(anchors), torch.zeros_like(own), torch.zeros_like(others)
            for rows in labelled.split(self.chunk) if len(labelled) else ():
                part, slopes, found = self._chunk(own, ids, others, other_ids, columns, rows, features.first)
                value += part
                anchors += found
                if with_gradient:
                    d_own[rows] = slopes @ others
                    d_others.addmm_(slopes.T, own[rows])
            anchors = world.sum(anchors).clamp(min=1)
            value /= anchors
            if with_gradient:
                d_own = (d_own + world.give_back(d_others, features.total)) / (self.temperature * anchors)
        return {self.name: known_gradient(value, [(image, d_own)]) if with_gradient else value}

    def counts(self, features: Features) -> dict[str, torch.Tensor]:
        """This process's images with a label, with or without a positive."""
        if features.labels is None:
            return {self.name: torch.tensor(0, device=features.image.device)}
        return {self.name: torch.tensor(len(features.labels.rows.unique()), device=features.image.device)}

    def _chunk(
        self,
        own: torch.Tensor,
        ids: torch.Tensor,
        others: torch.Tensor,
        other_ids: torch.Tensor,
        columns: torch.Tensor,
        rows: torch.Tensor,
        first: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the anchors `rows`: M times their loss, its gradient by logits, and how many have a positive."""
        at = torch.arange(len(rows), device=rows.device), rows + first
        positive = torch.zeros((len(rows), len(others)), dtype=torch.bool, device=rows.device)
        for some in ids[rows].unbind(1):
            for there in other_ids.unbind(1):
                positive |= (some[:, None] == there) & (some != _NONE)[:, None]
        positive[at] = False
        found = positive.sum(1, keepdim=True)
        share = positive.to(own.dtype) / found.clamp(min=1)  # of each positive in its anchor's loss
        logits = torch.addmm(columns, own[rows] / self.temperature, others.T)
        logits[at] = absent(logits.dtype)
        maxima = logits.amax(1, keepdim=True)
        softmax = torch.exp(logits - maxima)
        sums = softmax.sum(1, keepdim=True)
        counts = (found > 0).to(own.dtype)
        value = (share * (maxima - logits)).sum() + (counts * sums.log()).sum()
        return value, softmax.mul_(counts / sums).sub_(share), counts.sum()


def _table(labels: Labels | None, samples: int, world: World, device: torch.device) -> torch.Tensor:
    """Labels as a table, ``(samples, most labels of any sample of the batch) int64``, from the left, -1 where none."""
    if labels is None or not len(labels.rows):
        rows = ids = torch.zeros(0, dtype=torch.int64, device=device)
    else:
        rows, ids = labels.rows.to(device).contiguous(), labels.ids.to(device)
    places = torch.arange(len(rows), device=device) - torch.searchsorted(rows, rows)  # of its sample's labels
    most = torch.zeros(1, dtype=torch.int64, device=device)
    if len(places):
        most = places.max()[None] + 1
    table = torch.full((samples, max(1, int(world.max(most)))), _NONE, dtype=torch.int64, device=device)
    table[rows, places] = ids
    return table
