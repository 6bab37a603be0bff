"""An option that names a registered class: ``optimizer: lion`` is short for ``optimizer: {type: lion}``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from ..errors import ConfigError
from ..registry import Registry


def named_option(registry: Registry[Any]) -> Any:
    """The pydantic field type of "one of the registry's classes", by name or as an object with its ``type``.

    A name that does not exist is explained in the registry's words. Call it when all classes are registered.
    """

    def known(value: Any) -> Any:
        value = {"type": value} if isinstance(value, str) else value
        if isinstance(value, dict) and isinstance(value.get("type"), str):
            try:
                registry[value["type"]]
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return value

    return Annotated[registry.union(), BeforeValidator(known)]
