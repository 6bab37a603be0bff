"""`zero_shot`: name the class whose prompts lie nearest (Radford et al., ICML 2021, section 3.1).

The protocol of CLIP_benchmark and DataComp: prompts from the set's own templates, ensembled in embedding space; the
prediction is the class of the largest cosine (the logit scale does not change ranks). A set without templates is an
error, never ImageNet's 80 in silence.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from ...errors import DataError
from ...shards.evalset import TEMPLATES, EvalSet
from ..features import class_weights
from ..metrics import BLOCK, outcomes
from .base import SUITES, EvalContext, Need, Suite, SuiteResult


@SUITES.register
class ZeroShot(Suite):
    """Classify by the nearest prompt; nothing is learned."""

    task: ClassVar[str] = "zeroshot_classification"
    main_metric: ClassVar[str] = "acc1"
    needs: ClassVar[tuple[Need, ...]] = ("text",)

    type: Literal["zero_shot"] = "zero_shot"
    templates: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Prompt templates with {c} or {} for the class name; default: those that come with the set.",
    )

    @field_validator("templates")
    @classmethod
    def _has_place(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for template in value or ():
            if "{c}" not in template and "{}" not in template:
                raise ValueError(f"template {template!r} has no {{c}} for the class name")
        return value

    def templates_for(self, evalset: EvalSet) -> tuple[str, ...]:
        if self.templates is None and not evalset.templates:
            raise DataError(
                f"{evalset.folder} has no templates ({TEMPLATES}); add the file, or set `templates` of zero_shot"
            )
        return evalset.templates if self.templates is None else self.templates

    def evaluate(self, context: EvalContext) -> SuiteResult:
        image, labels = context.features(self.split)
        templates = self.templates_for(context.evalset)
        weights = class_weights(context.text, context.evalset, templates)
        blocks = (image[start : start + BLOCK] @ weights.T for start in range(0, len(image), BLOCK))
        found = outcomes(blocks, labels)
        return SuiteResult(found.metrics(), found, {"prompts": len(templates) * len(weights)})
