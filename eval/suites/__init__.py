"""Families of evaluations, by name. Importing this is cheap: sklearn and torch are imported when a suite runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from . import (
    association,
    compositional,
    fairness,
    fast,
    fewshot,
    knn,
    linear_probe,
    multi_label,
    multilingual,
    retrieval,
    ridge_probe,
    supervised,
    vtab,
    zero_shot,
)
from .base import SUITES, EvalContext, Suite, SuiteResult

MODULES = (
    zero_shot,
    multilingual,
    linear_probe,
    ridge_probe,
    fewshot,
    knn,
    vtab,
    supervised,
    retrieval,
    compositional,
    association,
    multi_label,
    fairness,
    fast,
)


def _named(value: Any) -> Any:
    """Allow ``zero_shot`` for ``{type: zero_shot}``."""
    return {"type": value} if isinstance(value, str) else value


def _union() -> Any:
    return SUITES.union()


SuiteOption = Annotated[_union(), BeforeValidator(_named)]
"""Field type of "one suite": its name, a mapping with options, or a `Suite`."""


def parse_suites(values: Sequence[Any]) -> list[Suite]:
    """Suites from names and mappings, as a config gives them.

    Raises:
        pydantic.ValidationError: an unknown suite or option.
    """
    return TypeAdapter(list[SuiteOption]).validate_python(list(values))


__all__ = ["MODULES", "SUITES", "EvalContext", "Suite", "SuiteOption", "SuiteResult", "parse_suites"]
