"""Options of learning from labels; importing them needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from ..registry import Options
from .objectives.supervised_options import MultiLabelOptions, SemanticSoftmaxOptions, SoftmaxOptions

if TYPE_CHECKING:
    from .data.label_space import LabelSpace
    from .objectives.base import Objective


def _named(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


Loss = Annotated[
    Annotated[SoftmaxOptions | MultiLabelOptions | SemanticSoftmaxOptions, Field(discriminator="type")],
    BeforeValidator(_named),
]


class LabelOptions(Options):
    """Which labels are learned, and how."""

    column: str = Field(description="Column of the row tables with the labels: text, numbers, or lists of them.")
    loss: Loss | None = Field(
        default_factory=SoftmaxOptions,
        description="softmax, multi_label or semantic_softmax; none = no head, for supcon alone.",
    )
    classes: str | tuple[str, ...] | None = Field(
        None, description="The classes, in order, or a text file with one a line; none = all that occur."
    )
    min_samples: int = Field(1, ge=1, description="Classes with fewer samples are left out (ImageNet-21K-P: 501).")

    def named_classes(self) -> list[str] | None:
        """The classes, if they are given.

        Raises:
            ConfigError: their file is not there.
        """
        from .data.label_space import read_classes

        return read_classes(self.classes) if isinstance(self.classes, str) else (list(self.classes or ()) or None)

    def objective(self, space: LabelSpace) -> Objective:
        """The loss over the classes of a label space."""
        if self.loss is None:
            raise ValueError("these labels have no loss of their own")
        if isinstance(self.loss, SemanticSoftmaxOptions):
            from .data.class_hierarchy import find_hierarchy

            return self.loss.objective(find_hierarchy(space.names, self.loss.hierarchy, self.loss.wordnet))
        return self.loss.objective()
