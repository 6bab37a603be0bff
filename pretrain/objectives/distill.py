"""Learn from a teacher: its similarities within the batch, its features, or its classes. One objective per teacher.

- ``logits``: cross entropy of the student's softmax over the batch against the teacher's, both directions. Hinton et
  al., arXiv:1503.02531; in the form of open_clip's DistillClipLoss. The teacher's captions travel without gradient, as
  the student's own do, so the rows x batch of either model exist a chunk at a time.
- ``features``: how far the student's features, projected by the network, are from the teacher's: of images and, unless
  only those of images are projected, of captions. Nothing travels.
- ``classes``: Kullback-Leibler divergence from the teacher's softmax over classes to the student's, at a temperature;
  "Knowledge distillation: a good teacher is patient and consistent", Beyer et al., CVPR 2022, section 3: the teacher
  sees the same crop, and the training is long. Nothing travels.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from ...errors import ConfigError
from ..features import Features, TeacherFeatures
from ..processes.world import World
from .in_batch_softmax import in_batch_softmax
from .pairs import Pairs, captioned, in_float32, texts_of

Kind = Literal["logits", "features", "classes"]
Distance = Literal["cosine", "squared"]


class DistillObjective:
    """What one teacher says.

    Args:
        teacher: its place in `Features.teachers`; the term is ``distill_<place>``.
        kind: what is compared.
        distance: of features: 1 - cosine, or the squared Euclidean distance to the teacher's L2-normalised ones.
        temperature: of classes: both models' logits are divided by it, and the loss multiplied by its square.
        groups, chunk: of ``logits``, as for the contrastive loss.
    """

    def __init__(
        self,
        teacher: int,
        kind: Kind,
        distance: Distance = "cosine",
        temperature: float = 1.0,
        groups: int = 1,
        chunk: int = 1024,
    ) -> None:
        self.teacher, self.kind, self.distance, self.temperature = teacher, kind, distance, temperature
        self.groups, self.chunk = groups, chunk
        self.name = f"distill_{teacher}"

    @property
    def couples_samples(self) -> bool:
        """Similarities do, and the mean over captioned samples where texts are compared."""
        return self.kind != "classes"

    def terms(self, features: Features, world: World) -> dict[str, torch.Tensor]:
        """``{"distill_<place>": part}``: a mean over the whole batch; over its captioned samples where text counts."""
        teacher = features.teachers[self.teacher]
        if self.kind == "logits":
            return {self.name: self._similarities(features, teacher, world)}
        if self.kind == "features":
            return {self.name: self._features(features, teacher, world)}
        return {self.name: self._classes(features, teacher)}

    def counts(self, features: Features) -> dict[str, torch.Tensor]:
        """This process's samples that take part."""
        if self.kind == "logits":
            return {self.name: captioned(features)}
        return {self.name: torch.tensor(len(features.image), device=features.image.device)}

    def _similarities(self, features: Features, teacher: TeacherFeatures, world: World) -> torch.Tensor:
        if teacher.image is None or teacher.text is None:
            raise ConfigError(f"teacher {self.teacher} has no text tower: it can teach `features`, not `logits`")
        pairs = Pairs(features, world, self.groups, self.chunk)
        image, text = in_float32(features.image), in_float32(texts_of(features))
        guide = in_float32(teacher.image), in_float32(teacher.text), teacher.scale
        return in_batch_softmax(pairs, image, text, in_float32(features.scale), guide)

    def _features(self, features: Features, teacher: TeacherFeatures, world: World) -> torch.Tensor:
        sides = []
        if teacher.image is not None:
            own = features.image if teacher.projected_image is None else teacher.projected_image
            sides.append(self._distances(own, teacher.image).sum() / features.total)
        images_only = teacher.projected_image is not None and teacher.projected_text is None
        if teacher.text is not None and features.text is not None and not images_only:
            own, others = features.text if teacher.projected_text is None else teacher.projected_text, teacher.text
            count = world.sum(captioned(features)).clamp(min=1)
            if features.captioned is not None:
                own, others = own[features.captioned], others[features.captioned]
            sides.append(self._distances(own, others).sum() / count)
        if not sides:
            raise ConfigError(f"teacher {self.teacher} gives no features that the student has too")
        return torch.stack(sides).mean()

    def _distances(self, own: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """``(b,)``, each sample's."""
        if own.shape[1] != others.shape[1]:
            raise ConfigError(
                f"the student's features have {own.shape[1]} numbers, those of teacher {self.teacher} have "
                f"{others.shape[1]}: a projection between them is needed"
            )
        own, others = in_float32(own), in_float32(others.detach())
        if self.distance == "squared":
            return (own - others).square().sum(1)
        return 1 - (F.normalize(own, dim=1) * F.normalize(others, dim=1)).sum(1)

    def _classes(self, features: Features, teacher: TeacherFeatures) -> torch.Tensor:
        if features.logits is None or teacher.logits is None:
            raise ConfigError(f"teacher {self.teacher} should teach classes: both models need a classification head")
        if features.logits.shape != teacher.logits.shape:
            raise ConfigError(
                f"the student knows {features.logits.shape[1]} classes, teacher {self.teacher} "
                f"{teacher.logits.shape[1]}: they must be the same"
            )
        own = F.log_softmax(in_float32(features.logits) / self.temperature, dim=1)
        others = F.log_softmax(in_float32(teacher.logits.detach()) / self.temperature, dim=1)
        divergence = (others.exp() * (others - own)).sum()
        return divergence * (self.temperature**2 / features.total)
