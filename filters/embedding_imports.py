"""The kinds of embeddings that can be imported: DataComp's npz, clip-retrieval folders, arrays, parquet columns."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ..errors import ConfigError
from ..shards import storage
from .embedding_import import EMBEDDING_IMPORTS, EmbeddingImport, Modality
from .scorers.import_scores import found_files
from .vector_ranges import ranges

__all__ = ["EMBEDDING_IMPORTS", "EmbeddingImport"]


@EMBEDDING_IMPORTS.register
class DatacompEmbeddings(EmbeddingImport):
    """DataComp's npz files, row for row with the parquet of the same name."""

    type: Literal["datacomp"] = "datacomp"
    path: str = Field(description="Folder with the parquet and npz files, or with xlarge's `part_*` folders.")
    arch: Literal["b32", "l14"] = Field(default="l14", description="OpenAI's CLIP ViT-B/32 or ViT-L/14.")
    only: Modality | None = Field(default=None, description="Only the vectors of images, or of captions; null = both.")

    def modalities(self) -> list[Modality]:
        return ["image", "text"] if self.only is None else [self.only]

    def files(self) -> list[str]:
        tables = self._tables()
        return [*tables, *map(_npz, tables)]

    def ranges(self) -> list[dict[str, Any]]:
        found = []
        for table in self._tables():
            npz = _npz(table)
            if not storage.exists(npz):
                raise ConfigError(f"import of embeddings (datacomp): {table} has no {npz.rsplit('/', 1)[-1]} beside it")
            ends = {"image": "img", "text": "txt"}
            found += ranges(table, self.key, {m: (npz, f"{self.arch}_{ends[m]}") for m in self.modalities()})
        return found

    def _tables(self) -> list[str]:
        where = "import of embeddings (datacomp)"
        try:
            return found_files(self.path, where, [".parquet"])
        except ConfigError as error:
            try:
                return found_files(storage.join(self.path, "part_*"), where, [".parquet"])
            except ConfigError:
                raise error from None


@EMBEDDING_IMPORTS.register
class ClipRetrievalEmbeddings(EmbeddingImport):
    """A folder of clip-retrieval, or of a release: ``img_emb/img_emb_N.npy``, ``text_emb/``, ``metadata/``.

    clip-retrieval's metadata has a uid only if the samples' JSON had one. Otherwise say which column is the key and
    which of the pool it equals: ``key: image_path, on: key`` or ``key: url, on: url``.
    """

    type: Literal["clip_retrieval"] = "clip_retrieval"
    path: str = Field(description="Folder with `img_emb/` and `text_emb/`.")
    metadata: str | None = Field(
        default=None, description="Folder with the parquet files; default: `metadata/` in the folder."
    )
    only: Modality | None = Field(default=None, description="Only the vectors of images, or of captions; null = both.")

    def modalities(self) -> list[Modality]:
        return ["image", "text"] if self.only is None else [self.only]

    def files(self) -> list[str]:
        return [file for table, arrays in self._found() for file in (table, *arrays.values())]

    def ranges(self) -> list[dict[str, Any]]:
        found = []
        for table, arrays in self._found():
            found += ranges(table, self.key, {m: (path, None) for m, path in arrays.items()})
        return found

    def _found(self) -> list[tuple[str, dict[str, str]]]:
        where = "import of embeddings (clip_retrieval)"
        folder = storage.join(self.path, "metadata") if self.metadata is None else self.metadata
        found = []
        for table in found_files(folder, where, [".parquet"]):
            number = table.rsplit("/", 1)[-1].removesuffix(".parquet").removeprefix("metadata_")
            arrays = {}
            for modality in self.modalities():
                name = {"image": "img_emb", "text": "text_emb"}[modality]
                arrays[modality] = storage.join(self.path, name, f"{name}_{number}.npy")
                if not storage.exists(arrays[modality]):
                    other = "text" if modality == "image" else "image"
                    raise ConfigError(f"{where}: {arrays[modality]} does not exist; only {other}? say `only: {other}`")
            found.append((table, arrays))
        return found


@EMBEDDING_IMPORTS.register
class NpyEmbeddings(EmbeddingImport):
    """Arrays of vectors, and a file with the uid of each row."""

    type: Literal["npy"] = "npy"
    image: str | None = Field(default=None, description=".npy with the vectors of the images, `(rows, d)` floats.")
    text: str | None = Field(default=None, description=".npy with the vectors of the captions.")
    uids: str = Field(
        description="uid of each row: parquet, csv or jsonl (column `key`), txt (one a line), or .npy of text or of "
        "DataComp's records."
    )

    @model_validator(mode="after")
    def _some(self) -> NpyEmbeddings:
        if self.image is None and self.text is None:
            raise ValueError("say where the vectors are: `image`, `text` or both")
        return self

    def modalities(self) -> list[Modality]:
        return [m for m, path in (("image", self.image), ("text", self.text)) if path is not None]  # type: ignore[misc]

    def files(self) -> list[str]:
        return [path for path in (self.uids, self.image, self.text) if path is not None]

    def ranges(self) -> list[dict[str, Any]]:
        paths = {"image": self.image, "text": self.text}
        return ranges(self.uids, self.key, {m: (str(paths[m]), None) for m in self.modalities()})


@EMBEDDING_IMPORTS.register
class ParquetEmbeddings(EmbeddingImport):
    """Parquet files with a column of uids and columns of vectors (lists of floats)."""

    type: Literal["parquet"] = "parquet"
    path: str = Field(description="Parquet file(s): a file, a folder or a glob pattern.")
    image: str | None = Field(default=None, description="Column with the vectors of the images.")
    text: str | None = Field(default=None, description="Column with the vectors of the captions.")

    @model_validator(mode="after")
    def _some(self) -> ParquetEmbeddings:
        if self.image is None and self.text is None:
            raise ValueError("say which column holds the vectors: `image`, `text` or both")
        return self

    def modalities(self) -> list[Modality]:
        return [m for m, column in (("image", self.image), ("text", self.text)) if column is not None]  # type: ignore[misc]

    def files(self) -> list[str]:
        return found_files(self.path, "import of embeddings (parquet)", [".parquet"])

    def ranges(self) -> list[dict[str, Any]]:
        columns = {"image": self.image, "text": self.text}
        found = []
        for path in self.files():
            found += ranges(path, self.key, {m: (path, columns[m]) for m in self.modalities()})
        return found


def _npz(table: str) -> str:
    folder, slash, name = table.rpartition("/")
    return f"{folder}{slash}{name.split('.parquet', 1)[0]}.npz"
