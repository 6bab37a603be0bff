"""`EvalSource`: an entry of a config that names evaluation data, and the sets that it opens."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ...errors import ConfigError, DataError
from ...registry import Options
from .. import storage


class EvalSource(Options):
    """Evaluation data: one set, or a folder of sets; local or any fsspec URL."""

    path: str = Field(
        min_length=1, description="Folder (or parquet file) of a set, or a folder of sets; any fsspec URL."
    )
    layout: Literal["auto", "webdataset", "folder", "parquet"] = Field(
        default="auto", description="How its files lie; `auto` tells it by their names."
    )
    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="What results call the set; default: the folder's name without `wds_` and `_test`.",
    )
    language: str = Field(default="en", min_length=1, description="Language of its texts, in CLIP_benchmark's names.")
    classnames: tuple[str, ...] | str | None = Field(
        default=None, description="Class names in label order, or a file with one a line; default: the set's own."
    )
    templates: tuple[str, ...] | str | None = Field(
        default=None,
        description="Prompt templates with `{c}` or `{}`, or a file with one a line; default: the set's own.",
    )
    image: str | None = Field(default=None, description="Parquet: column of the pictures (bytes, or bytes and path).")
    label: str | None = Field(default=None, description="Parquet: column of the labels (numbers, names, lists).")
    captions: str | None = Field(default=None, description="Parquet: column of the captions (a text or a list).")

    @classmethod
    def parse(cls, value: str | dict[str, Any] | EvalSource) -> EvalSource:
        """A source from what a config says: a path alone, or the options."""
        if isinstance(value, EvalSource):
            return value
        return cls(path=value) if isinstance(value, str) else cls(**value)

    def at(self, path: str) -> EvalSource:
        """The same options for files that lie elsewhere."""
        return self.model_copy(update={"path": path})

    def folders(self) -> list[str]:
        """Paths of the sets: `path` itself, or the sets in it.

        Raises:
            ConfigError: nothing is there.
        """
        path = self.path.rstrip("/")
        if self.layout in ("auto", "webdataset") and not path.endswith(".parquet"):
            from .webdataset import split_names

            if split_names(path):
                return [path]
            names = storage.list_names(path)
            if inner := [storage.join(path, name) for name in names if name.startswith("wds_")]:
                return inner
            if inner := [one for one in (storage.join(path, n) for n in names if "." not in n) if split_names(one)]:
                return inner
        if not storage.exists(path):
            raise ConfigError(f"evaluation data: nothing is there: {self.path}")
        return [path]

    def open(self) -> list[Any]:
        """The sets (`base.EvalSet`), in the order of their names.

        Raises:
            ConfigError: nothing is there, or a `name` or texts are given for several sets at once.
            DataError: what is missing or broken, and where.
        """
        folders = self.folders()
        return [self.open_one(folder, len(folders) > 1) for folder in folders]

    def open_one(self, folder: str, several: bool = False) -> Any:
        """The set in one of `folders`; see `open`."""
        if several and (given := [n for n in ("name", "classnames", "templates") if getattr(self, n) is not None]):
            raise ConfigError(f"evaluation data: {self.path} holds several sets; give `{given[0]}` for each by itself")
        from .open import layout_of

        texts = (self.name, self._lines("classnames"), self._lines("templates"), self.language)
        layout = layout_of(folder) if self.layout == "auto" else self.layout
        if layout != "parquet" and (given := [n for n in ("image", "label", "captions") if getattr(self, n)]):
            raise ConfigError(f"evaluation data: {folder} is a {layout} set; `{given[0]}` is for parquet files")
        if layout == "webdataset":
            from .webdataset import open_webdataset

            return open_webdataset(folder, *texts)
        if layout == "folder":
            from .folder import open_folder

            return open_folder(folder, *texts)
        from .parquet import Columns, open_parquet

        return open_parquet(folder, *texts, Columns(self.image, self.label, self.captions))

    def _lines(self, option: Literal["classnames", "templates"]) -> tuple[str, ...] | None:
        """The lines of an option that is a list, or names a file."""
        given = getattr(self, option)
        if isinstance(given, str):
            from .texts import read_lines

            if not storage.exists(given):
                raise ConfigError(f"evaluation data: {option}: there is no file {given}")
            given = read_lines(given)
        if given is not None and option == "templates":
            from .texts import require_placeholders

            try:
                require_placeholders(given, "evaluation data: templates")
            except DataError as error:
                raise ConfigError(str(error)) from error
        return given

    def identity(self) -> str:
        """Identity of the data and of what the options say about it, wherever it lies: 32 hexadecimal characters.

        Raises:
            ConfigError: nothing is there.
        """
        try:
            data = [(folder.rsplit("/", 1)[-1], storage.identity(folder)) for folder in self.folders()]
        except FileNotFoundError as error:
            raise ConfigError(f"evaluation data: nothing is there: {self.path}") from error
        return hashlib.blake2b(json.dumps([self.told(), data], sort_keys=True).encode(), digest_size=16).hexdigest()

    def told(self) -> dict[str, Any]:
        """What the options say about the data, wherever it lies; files of names and templates by what they hold."""
        options = self.model_dump(mode="json", exclude={"path", "classnames", "templates"})
        return options | {"classnames": self._lines("classnames"), "templates": self._lines("templates")}


def _path_alone(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


EvalSourceOption = Annotated[EvalSource, BeforeValidator(_path_alone, json_schema_input_type=EvalSource | str)]
"""A source as a config has it: its options, or a path alone."""
