"""Reading a config file: YAML with line numbers, dotted overrides, and errors that say where and what was meant.

YAML 1.1 reads ``on``, ``no`` and ``yes`` as booleans (so ``exact_dedup: {on: [image]}`` and the language code ``no``
would break) and lets a repeated key win silently. Here only ``true`` and ``false`` are booleans, and a repeated key is
an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from ..registry import nearest, unknown

Path_ = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader whose only booleans are true and false."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF"))
_Loader.add_implicit_resolver(  # 1e-3 is a number, with or without a dot
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class ConfigFile:
    """The plain values of a config file and where each of them stands."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.text = text
        self._lines: dict[Path_, int] = {}
        try:
            node = yaml.compose(text, Loader=_Loader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{name}:{mark.line + 1}" if mark else name
            raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
        if node is None:
            raise ConfigError(f"{name}: the file is empty; `curate init` writes one to start from")
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{name}:1: a config is a mapping of sections (pool, subsets, ...)")
        self._locate(node, ())
        self.values: dict[str, Any] = _construct(node)

    @classmethod
    def read(cls, path: str) -> ConfigFile:
        try:
            return cls(Path(path).read_text(), path)
        except FileNotFoundError:
            raise ConfigError(f"config file {path!r} does not exist; `curate init {path}` writes one") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read config file {path!r}: {error}") from error

    def _locate(self, node: yaml.Node, path: Path_) -> None:
        self._lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise ConfigError(
                        f"{self.name}:{line}: key {key.value!r} is given twice (first on line {seen[key.value]})"
                    )
                seen[key.value] = line
                self._locate(value, (*path, key.value))
                self._lines[(*path, key.value)] = line
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                self._locate(value, (*path, i))

    def override(self, assignments: Sequence[str]) -> None:
        """Apply ``a.b.c=value`` assignments; values are YAML.

        Raises:
            ConfigError: an assignment without ``=``, or one that walks into a plain value.
        """
        for assignment in assignments:
            dotted, equals, text = assignment.partition("=")
            if not equals or not dotted:
                raise ConfigError(f"override {assignment!r} must look like section.key=value")
            keys: list[str | int] = [int(k) if k.isdigit() else k for k in dotted.split(".")]
            target: Any = self.values
            for i, key in enumerate(keys):
                last = i == len(keys) - 1
                try:
                    if last:
                        target[key] = yaml.load(text, Loader=_Loader)
                    elif isinstance(target, dict):
                        target = target.setdefault(key, {})
                    else:
                        target = target[key]
                except (TypeError, IndexError, KeyError, yaml.YAMLError) as error:
                    raise ConfigError(f"override {assignment!r}: cannot set {dotted!r} here ({error})") from error
            for i in range(1, len(keys)):
                self._lines.setdefault(tuple(keys[:i]), 0)
            self._lines[tuple(keys)] = 0

    def where(self, location: Path_) -> str:
        """``file:line`` of the innermost place of a validation error's location that the file has."""
        path: Path_ = ()
        line = self._lines.get((), 1)
        for key in location:
            if (*path, key) in self._lines:  # locations also name the union member that was tried; those are skipped
                path = (*path, key)
                line = self._lines[path]
        return "command line" if line == 0 else f"{self.name}:{line}"

    def validate(self, model: type[BaseModel]) -> Any:
        """The typed config.

        Raises:
            ConfigError: every wrong key and value, one line each: where, what, and the nearest right spelling.
        """
        try:
            return model.model_validate(self.values)
        except ValidationError as error:
            schema = model.model_json_schema()
            messages = [self._message(e, schema) for e in error.errors()]
            raise ConfigError("\n".join(dict.fromkeys(messages))) from None

    def _message(self, error: Any, schema: dict[str, Any]) -> str:
        location: Path_ = error["loc"]
        dotted = ".".join(str(k) for k in self._plain(location))
        where = self.where(location)
        kind, context = error["type"], error.get("ctx", {})
        if kind == "extra_forbidden":
            known = _known_keys(schema, location[:-1])
            key = str(location[-1])
            inside = dotted.rpartition(".")[0]
            return f"{where}: {unknown('key', key, known)}" + (f" (in {inside})" if inside else "")
        if kind == "union_tag_invalid":
            tags = [t.strip(" '") for t in context["expected_tags"].split(",")]
            return f"{where}: {dotted}: {unknown('type', str(context['tag']), tags)}"
        if kind == "union_tag_not_found":
            return f"{where}: {dotted}: `type` is missing"
        if kind == "missing":
            return f"{where}: {dotted} is required"
        if kind == "literal_error":
            guess = nearest(str(error["input"]), re.findall(r"'([^']*)'", context["expected"]))
            hint = f"; did you mean {guess!r}?" if guess else ""
            return f"{where}: {dotted}: {error['input']!r} is not one of {context['expected']}{hint}"
        message = error["msg"].removeprefix("Value error, ")
        return f"{where}: {dotted}: {message} (got {error['input']!r})" if dotted else f"{where}: {message}"

    def _plain(self, location: Path_) -> Path_:
        """The location without the names of union members."""
        path: Path_ = ()
        for i, key in enumerate(location):
            if (*path, key) in self._lines or i == len(location) - 1:
                path = (*path, key)
        return path


def _construct(node: yaml.Node) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _known_keys(schema: dict[str, Any], location: Path_) -> list[str]:
    """Property names that the JSON Schema allows at a location."""
    definitions = schema.get("$defs", {})

    def resolve(node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[-1]]
        return node

    def members(node: dict[str, Any]) -> list[dict[str, Any]]:
        """The node, and all that it may be: an optional union is a union in a union."""
        inner = [members(resolve(m)) for m in (*node.get("anyOf", ()), *node.get("oneOf", ()))]
        return [node, *(m for found in inner for m in found)]

    nodes = [resolve(schema)]
    for key in location:
        found: list[dict[str, Any]] = []
        for node in nodes:
            for option in members(node):
                properties = option.get("properties", {})
                if key in properties:
                    found.append(resolve(properties[key]))
                elif isinstance(key, int) and "items" in option:
                    found.append(resolve(option["items"]))
                elif "patternProperties" in option:
                    found += [resolve(p) for p in option["patternProperties"].values()]
                elif isinstance(option.get("additionalProperties"), dict):
                    found.append(resolve(option["additionalProperties"]))
                elif properties.get("type", {}).get("const") == key:  # the location names the union member
                    found.append(option)
        nodes = found or nodes
    names: list[str] = []
    for node in nodes:
        for member in members(node):
            names += member.get("properties", {})
    return list(dict.fromkeys(names))
