"""Options of the suites whose classes are prompts: where the words come from, and how they are prepared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ...errors import DataError
from ...shards.evalsets.base import PLACEHOLDER, EvalSet
from ...shards.evalsets.webdataset import TEMPLATES
from ..tasks.prompts import (
    NAMED,
    Aliases,
    ClassTexts,
    NamedTemplates,
    class_texts,
    named_templates,
    read_class_prompts,
    read_texts,
    set_texts,
)
from .base import Need, Splits, Suite


def _read_templates(value: Any) -> Any:
    return read_texts(value, "prompt templates") if isinstance(value, str) and value not in NAMED else value


def _read_classnames(value: Any) -> Any:
    return read_texts(value, "class names") if isinstance(value, str) else value


def _read_class_prompts(value: Any) -> Any:
    return read_class_prompts(value) if isinstance(value, str) else value


Templates = Annotated[
    tuple[str, ...] | NamedTemplates, BeforeValidator(_read_templates, json_schema_input_type=list[str] | str)
]
"""Templates, the name of a set of them, or a file; it is read when the options are, so that what it holds is part of
what was asked."""


def require_places(templates: Iterable[str]) -> None:
    """Raise ValueError for a template without a place for the class name."""
    for template in templates:
        if not PLACEHOLDER.search(template):
            raise ValueError(f"template {template!r} has no {{c}} for the class name")


class PromptedSuite(Suite):
    """Base of suites that compare pictures with prompts of classes."""

    needs: ClassVar[tuple[Need, ...]] = ("text",)

    templates: Templates | None = Field(
        default=None,
        min_length=1,
        description="Prompt templates with {c} or {} for the class name: a list, a file with one per line (or a JSON "
        "list), `simple` (one), or `openai_imagenet` (80) and `openai_simple` (7), which open_clip ships. Default: "
        "those that come with the set.",
    )
    classnames: Annotated[
        tuple[str, ...] | None, BeforeValidator(_read_classnames, json_schema_input_type=list[str] | str | None)
    ] = Field(
        default=None,
        min_length=1,
        description="Class names in label order, or a file with one per line; default: those of the set. Of another "
        "number than the set's they are an error, so name the `sets` that they are for.",
    )
    class_prompts: Annotated[
        dict[str, tuple[str, ...]] | None,
        BeforeValidator(_read_class_prompts, json_schema_input_type=dict[str, list[str]] | str | None),
    ] = Field(
        default=None,
        min_length=1,
        description="Class name -> whole prompts of that class (CuPL), or a JSON file of them, instead of templates. "
        "Every result repeats its options: large collections are better shipped with the set.",
    )
    canonicalize: bool = Field(
        default=False,
        description="Prepare names and templates as big_vision does for SigLIP: `_` becomes a blank, punctuation but "
        "`,` goes, lower case.",
    )
    aliases: Aliases = Field(
        default="whole",
        description="What a comma in a class name means: nothing (whole), or other names of the same thing, of which "
        "the `first` counts or `all` do, each in every template.",
    )

    @field_validator("templates")
    @classmethod
    def _has_place(cls, value: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        if isinstance(value, tuple):
            require_places(value)
        return value

    @model_validator(mode="after")
    def _one_source(self) -> PromptedSuite:
        if self.templates is not None and self.class_prompts is not None:
            raise ValueError("give `templates` or `class_prompts`, not both")
        return self

    def classnames_for(self, evalset: EvalSet) -> tuple[str, ...]:
        if self.classnames is None:
            return evalset.classnames
        if len(self.classnames) != len(evalset.classnames):
            raise DataError(
                f"`classnames` of {self.label!r} has {len(self.classnames)} names for the {len(evalset.classnames)} "
                f"classes of {evalset.folder}; name the set that they are for in `sets`"
            )
        return self.classnames

    def templates_for(self, evalset: EvalSet) -> tuple[str, ...]:
        """Templates as they were given; empty when each class has prompts of its own."""
        return self.texts_of(evalset).templates

    def texts_of(self, evalset: EvalSet) -> ClassTexts:
        """Prompts of each class.

        Raises:
            DataError: there is nothing to make them of, or it does not fit the set.
        """
        where, names = evalset.folder, self.classnames_for(evalset)
        prepare = (self.canonicalize, self.aliases)
        if self.class_prompts is not None:
            return class_texts(f"{where} with {self.label!r}", names, (), self.class_prompts, *prepare)
        if self.templates is not None:
            chosen = self.templates if isinstance(self.templates, tuple) else named_templates(self.templates)
            return class_texts(where, names, chosen, None, *prepare)
        if evalset.class_prompts is not None:
            if names != evalset.classnames:
                raise DataError(f"{where} has prompts for its own class names; give `templates` with `classnames`")
            return set_texts(evalset, *prepare)
        if not evalset.templates:
            raise DataError(f"{where} has no templates ({TEMPLATES}); add the file, or set `templates` of {self.type}")
        return class_texts(where, names, evalset.templates, None, *prepare)

    def text_hash_for(self, evalset: EvalSet) -> str:
        """Hash of all that the prompts are made of; of names and templates alone where nothing else is."""
        return self.texts_of(evalset).digest

    def texts(self, evalset: EvalSet, split: Splits) -> list[str]:
        return self.texts_of(evalset).flat()
