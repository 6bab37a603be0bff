"""Options of supervised objectives; importing them needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ...registry import Options

if TYPE_CHECKING:
    from ..data.class_hierarchy import ClassHierarchy
    from .multi_label import MultiLabelObjective
    from .semantic_softmax import SemanticSoftmaxObjective
    from .softmax import SoftmaxObjective

Smoothing = Annotated[float, Field(ge=0, lt=1)]


class SoftmaxOptions(Options):
    """One softmax over all classes; several labels of a sample share it equally (Mahajan et al., ECCV 2018)."""

    type: Literal["softmax"] = "softmax"
    weight: float = Field(default=1.0, gt=0, description="Factor on this term of the loss.")
    smoothing: Smoothing = Field(default=0.1, description="Share of the target that is spread over all classes.")

    def objective(self) -> SoftmaxObjective:
        """The loss."""
        from .softmax import SoftmaxObjective

        return SoftmaxObjective(self.smoothing, self.weight)


class MultiLabelOptions(Options):
    """A yes-or-no decision per class, optionally asymmetric (Ridnik et al., ICCV 2021)."""

    type: Literal["multi_label"] = "multi_label"
    weight: float = Field(default=1.0, gt=0, description="Factor on this term of the loss.")
    over_classes: Literal["sum", "mean"] = Field(
        default="sum",
        description="How a sample's classes are added up; with `mean`, label spaces compare.",
    )
    positive_focus: float = Field(default=0.0, ge=0, description="Asymmetric loss: plays down easy positives.")
    negative_focus: float = Field(
        default=0.0, ge=0, description="Asymmetric loss: plays down easy negatives; its paper takes 4."
    )
    margin: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Asymmetric loss: negatives below it count nothing; its paper takes 0.05.",
    )

    def objective(self) -> MultiLabelObjective:
        """The loss."""
        from .multi_label import MultiLabelObjective

        return MultiLabelObjective(
            self.over_classes, self.positive_focus, self.negative_focus, self.margin, self.weight
        )


class SemanticSoftmaxOptions(Options):
    """A softmax per level of a class hierarchy (Ridnik et al., NeurIPS 2021: ImageNet-21K-P)."""

    type: Literal["semantic_softmax"] = "semantic_softmax"
    weight: float = Field(default=1.0, gt=0, description="Factor on this term of the loss.")
    hierarchy: str = Field(
        default="wordnet",
        description="File with a line `child parent` per class (a tab between names that hold blanks); wordnet = the "
        "classes are WordNet ids (n02084071) or nouns.",
    )
    wordnet: str = Field(default="/usr/share/wordnet", description="Folder of the WordNet 3.0 database.")
    smoothing: Smoothing = Field(default=0.2, description="Share of a level's target spread over its classes.")
    largest_level_weight: float = Field(
        default=20.0, ge=1, description="Bound on the weight of deep levels, which few classes reach."
    )

    def objective(self, hierarchy: ClassHierarchy) -> SemanticSoftmaxObjective:
        """The loss over the classes of `hierarchy` (`class_hierarchy.find_hierarchy`)."""
        from .semantic_softmax import SemanticSoftmaxObjective

        return SemanticSoftmaxObjective(hierarchy, self.smoothing, self.largest_level_weight, self.weight)
