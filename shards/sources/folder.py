"""The `folder` source: images in a folder tree, with captions beside them, in one file, or from the folders' names."""

from __future__ import annotations

import hashlib
import json
import posixpath
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from ...errors import ConfigError
from .. import storage
from ..tables import text_types, url_table
from ..tables.text_records import json_object
from ..uid import canonical, stable_uid
from .base import SOURCES, IngestOptions, Slot, Source
from .columns import carried, require
from .files import File, base, contents, listing
from .image_folder import FolderBodies, TooLarge, Unreadable, read_inside
from .stable_cuts import cut

if TYPE_CHECKING:
    from ..ingest import Bodies

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2")
_ENDS = 4096  # bytes at either end of an image that tell whether it changed
_MAX_TEXT = 4 << 20  # bytes of a .txt or .json; a larger one counts as none


@SOURCES.register
class FolderSource(Source):
    """Images in a folder and the folders in it.

    Rows are in order of the relative paths. Where a shard ends depends on the names around it alone (`stable_cuts`), so
    an image that comes or goes changes the shard that it falls into and leaves the others as they are.
    """

    version: ClassVar[int] = 1
    type: Literal["folder"] = "folder"
    path: str = Field(description="Folder; any fsspec URL.")
    captions: str | None = Field(
        default=None,
        description="File with the captions (csv, tsv, jsonl or json, also .gz), a path below `path` or a URL; one row "
        "per image and caption, an image may have several. Without it, captions are in `name.txt`, or under `caption` "
        "in `name.json`, beside `name.jpg`.",
    )
    file: str = Field(default="file_name", description="Column of `captions` with the images' paths below `path`.")
    caption: str = Field(default="text", description="Column of `captions` with the captions.")
    classes: bool = Field(
        default=False, description="The folders directly in `path` are classes: their names go to the column `label`."
    )
    template: str | None = Field(
        default="a photo of a {label}",
        description="Caption of images that have none, with `classes`; `{label}` is the class, its underscores as "
        "spaces. Null = no caption.",
    )

    def fingerprint(self) -> str:
        """Paths, sizes and ends of all images and captions."""
        digest = hashlib.blake2b(digest_size=16)
        for part in self.parts(None, 10_000):
            digest.update(part["key"].encode())
        return digest.hexdigest()

    def parts(self, prepared: str | None, samples_per_shard: int) -> list[dict[str, Any]]:
        """Runs of images: ``{"key", "folder", "images", "beside", "columns", "kinds"}``.

        ``beside`` tells for each image the endings of the texts beside it, ``columns`` the values that the captions
        file has for them.

        Raises:
            ConfigError: no such folder, or no image in it, or the captions file lacks a column.
            DataError: the captions file cannot be read.
        """
        folder = base(self.path)
        files = {file.path.removeprefix(folder): file for file in listing(self.path, recursive=True)}
        images = [name for name in files if name.lower().endswith(EXTENSIONS)]
        if not images:
            raise ConfigError(f"source path: no image at {self.path} ({', '.join(EXTENSIONS)})")
        listed, columns, kinds = self._listed(folder)
        entries = sorted((name, row) for name in {*images, *listed} for row in listed.get(name, [-1]))
        stamps = _stamps(files)
        parts = []
        for start, stop in cut([name for name, _ in entries], samples_per_shard):
            names = [name for name, _ in entries[start:stop]]
            beside = [_beside(name, files) for name in names]
            values = {c: [v[row] if row >= 0 else None for _, row in entries[start:stop]] for c, v in columns.items()}
            digest = hashlib.blake2b(json.dumps([kinds, values]).encode(), digest_size=16)
            for name, endings in zip(names, beside, strict=True):
                for one in (name, *(_stem(name) + ending for ending in endings or ())):
                    digest.update(f"{one}\0{stamps.get(one, '')}\0".encode("utf-8", "surrogateescape"))
            part = {"folder": folder, "images": names, "beside": beside, "columns": values, "kinds": kinds}
            parts.append({"key": digest.hexdigest(), **part})
        return parts

    def table(self, part: dict[str, Any]) -> pa.Table:
        """The rows of a part; ``url`` is the image's path below the folder."""
        names, told = part["images"], [self._told(part["folder"], *pair) for pair in _pairs(part)]
        columns = {c: text_types.from_values(values, part["kinds"][c]) for c, values in part["columns"].items()}
        given = columns.pop("caption", pa.nulls(len(names), pa.string())).to_pylist()
        labels = [name.split("/", 1)[0] if "/" in name else None for name in names] if self.classes else None
        captions = [
            caption if caption is not None else beside.get("caption") or self._made(label)
            for caption, beside, label in zip(given, told, labels or [None] * len(names), strict=True)
        ]
        urls = [beside.get("url") or _printable(name) for name, beside in zip(names, told, strict=True)]
        pairs = zip(names, captions, strict=True)
        made = (stable_uid(name, caption or "") for name, caption in pairs)
        ids = columns.pop("uid", pa.nulls(len(names), pa.string())).to_pylist()
        uids = canonical(
            (a or b.get("uid") for a, b in zip(ids, told, strict=True)), made, f"{part['folder']}{names[0]} and on"
        )
        if labels is not None:
            columns["label"] = pa.array(None if x is None else _printable(x) for x in labels).cast(pa.string())
        return pa.table({"uid": uids, "url": urls, "caption": pa.array(captions, pa.string()), **columns})

    def bodies(self, part: dict[str, Any], rows: pa.Table, slot: Slot, options: IngestOptions) -> Bodies:
        """The files; those that only the captions file knows are not there."""
        names = [name if beside is not None else None for name, beside in _pairs(part)]
        return FolderBodies(part["folder"], names, options.fetch.max_bytes)

    def _listed(self, folder: str) -> tuple[dict[str, list[int]], dict[str, list[Any]], dict[str, str]]:
        """Of the captions file: rows by image, columns of values, and the columns' kinds (`text_types`)."""
        if self.captions is None:
            return {}, {}, {}
        path = self.captions if self.captions.startswith("/") or "://" in self.captions else folder + self.captions
        if not path.lower().removesuffix(".gz").endswith((".csv", ".tsv", ".jsonl", ".json")):
            raise ConfigError(f"source option `captions`: {path} is no csv, tsv, jsonl or json file")
        if not storage.exists(path):
            raise ConfigError(f"source option `captions`: nothing is there: {path}")
        text = (self.file, self.caption, "uid")
        counted = url_table.count(path, sys.maxsize, text=text)
        require(path, counted.names, [("file", self.file), ("caption", self.caption)])
        extra = carried(path, counted.names, None, text)
        if self.classes and "label" in extra:
            raise ConfigError(f"source option `classes`: {path} has a column 'label' already")
        columns = {"caption": self.caption, **({"uid": "uid"} if "uid" in counted.names else {}), **extra}
        parts = list(counted.parts(sys.maxsize))
        table = url_table.read(path, parts[0], text) if parts else pa.table({c: [] for c in counted.names})
        listed: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(table[self.file].to_pylist()):
            listed[posixpath.normpath(name) if name else ""].append(row)
        kinds = {c: "string" if c in ("caption", "uid") else counted.kinds[name] for c, name in columns.items()}
        kinds = {c: "string" if kind == text_types.JSON else kind for c, kind in kinds.items()}
        return listed, {c: table[name].to_pylist() for c, name in columns.items()}, kinds

    def _told(self, folder: str, name: str, beside: list[str] | None) -> dict[str, str | None]:
        """``caption``, ``url`` and ``uid`` from the texts beside an image."""
        found: dict[str, str | None] = {}
        for ending in beside or ():
            try:
                data = read_inside(folder, _stem(name) + ending, _MAX_TEXT)
            except (Unreadable, TooLarge):
                continue
            if ending == ".txt":
                found["caption"] = data.decode("utf-8", "replace").strip()
            else:
                fields = json_object(data) or {}
                texts = {c: v for c in ("caption", "url", "uid") if isinstance(v := fields.get(c), str)}
                found = {**texts, **found}
        return found

    def _made(self, label: str | None) -> str | None:
        """The caption of a class."""
        if label is None or self.template is None:
            return None
        return self.template.replace("{label}", _printable(label).replace("_", " "))


def _pairs(part: dict[str, Any]) -> Iterator[tuple[str, list[str] | None]]:
    return zip(part["images"], part["beside"], strict=True)


def _beside(name: str, files: Mapping[str, File]) -> list[str] | None:
    """Endings of the texts beside an image; None when the image itself is not there."""
    return [e for e in (".txt", ".json") if _stem(name) + e in files] if name in files else None


def _stem(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.rsplit('.', 1)[0]}"


def _stamps(files: Mapping[str, File]) -> dict[str, str]:
    """What each file is: an object store's own stamp, or size and ends."""
    found = {name: file.stamp for name, file in files.items()}
    read = [name for name, stamp in found.items() if not stamp]
    return found | dict(zip(read, contents([files[name] for name in read], _ENDS, strict=False), strict=True))


def _printable(name: str) -> str:
    """A file name as text, whatever bytes it is."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
