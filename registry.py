"""Options and registries: how a name in the config becomes a class, and how wrong names are explained.

Every configurable thing (source, scorer, filter, recipe, suite) is one pydantic class whose fields are its
options and whose ``type`` is its registered name. A registry is a dictionary with a good error message.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Generic, TypeVar, Union, cast

from pydantic import BaseModel, ConfigDict, Field

from .errors import ConfigError


class Options(BaseModel):
    """Base of all option classes: immutable, unknown keys are errors, and what is dumped can be read again (an option
    whose name a method has taken goes by its alias in both directions)."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, serialize_by_alias=True)


T = TypeVar("T", bound=Options)
C = TypeVar("C", bound=Options)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known spelling closest to `name`, or None when nothing is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The sentence that tells a person about a name that does not exist."""
    known = sorted(known)
    guess = nearest(name, known)
    hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(known)}"
    return f"unknown {what} {name!r}; {hint}"


class Registry(Generic[T]):
    """Classes of one kind by the name that the config uses for them.

    >>> FILTERS = Registry("filter")
    >>> @FILTERS.register
    ... class Threshold(Filter):
    ...     type: Literal["threshold"] = "threshold"
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._classes: dict[str, type[T]] = {}

    def register(self, cls: type[C]) -> type[C]:
        """Class decorator; the name is the default of the class's ``type`` field."""
        name = cls.model_fields["type"].default
        if name in self._classes:
            raise ValueError(f"{self.what} {name!r} is registered twice")
        self._classes[name] = cast(type[T], cls)
        return cls

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            raise ConfigError(unknown(self.what, name, self._classes))
        return self._classes[name]

    def union(self) -> Any:
        """The discriminated union of all registered classes, for use as a pydantic field type."""
        classes = tuple(self._classes.values())
        if len(classes) == 1:
            return classes[0]
        return Annotated[Union[classes], Field(discriminator="type")]  # noqa: UP007  (built at run time)
