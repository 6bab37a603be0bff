"""Open a set, whatever its files look like."""

from __future__ import annotations

from typing import Literal

from ...errors import ConfigError, DataError
from ..shard import IMAGE_EXTENSIONS
from . import texts
from .base import EvalSet
from .webdataset import open_webdataset, split_names

Layout = Literal["webdataset", "folder", "parquet"]


def layout_of(folder: str) -> Layout:
    """How the files of a set lie, by their names.

    Raises:
        DataError: nothing is there, or nothing that could be a set.
    """
    folder = folder.rstrip("/")
    if folder.endswith(".parquet"):
        return "parquet"
    if split_names(folder):
        return "webdataset"
    from ..sources.files import base, listing

    try:
        root, files = base(folder), listing(folder, recursive=True)
    except ConfigError as error:
        raise DataError(f"no evaluation set at {folder}: the folder is missing or empty") from error
    names = [file.path.removeprefix(root) for file in files]
    endings = {name.lower().rpartition(".")[2] for name in names}
    if "tar" in endings or texts.DATASET_TYPE in names:
        return "webdataset"
    if "parquet" in endings:
        return "parquet"
    if endings & set(IMAGE_EXTENSIONS) or any(name.endswith("captions.jsonl") for name in names):
        return "folder"
    if texts.CLASSNAMES in names:
        return "webdataset"
    raise DataError(f"no evaluation set at {folder}: neither {texts.NSHARDS} and tars, nor pictures, nor parquet in it")


def open_evalset(
    folder: str,
    name: str | None = None,
    classnames: tuple[str, ...] | None = None,
    templates: tuple[str, ...] | None = None,
    language: str = "en",
) -> EvalSet:
    """The set in a folder.

    Args:
        name: what results call it; default: by the folder's name.
        classnames: instead of the set's own.
        templates: instead of the set's own.
        language: of its texts.

    Raises:
        DataError: there is no set, or its texts are missing or broken; says which.
    """
    layout = layout_of(folder)
    if layout == "folder":
        from .folder import open_folder

        return open_folder(folder, name, classnames, templates, language)
    if layout == "parquet":
        from .parquet import open_parquet

        return open_parquet(folder, name, classnames, templates, language)
    return open_webdataset(folder, name, classnames, templates, language)
