"""Files under any fsspec URL, published atomically.

Two ideas carry the whole house. *Reading* wants a local path (mmap, parquet, numpy), so `local` returns one:
the path itself, or for an object store a cached copy. *Writing* must never leave a torn file under a final
name, so `publishing` hands out a temporary local path and moves it into place only when the block ends well:
`os.replace` on a disk, one final-object put on an object store. A reader therefore sees a whole file or none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Any

from ..errors import StorageError

FULL_BYTES = 1 << 20  # with less free than this, a write without an error number failed for lack of room
TEMPORARY = ".tmp-"  # prefix of names that are not finished files
_UMASK = os.umask(0)  # it can only be read by setting it
os.umask(_UMASK)


def is_local(path: str) -> bool:
    """Whether `path` lies on a mounted file system (no scheme, or ``file://``)."""
    return "://" not in path or path.startswith("file://")


def url_to_fs(path: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path in it."""
    from fsspec.core import url_to_fs  # brings asyncio along: 60 ms that a run on local disks does without

    return url_to_fs(path)


def join(base: str, *names: str) -> str:
    """Path of `names` below `base`, with forward slashes; works for folders and URLs."""
    return "/".join([base.rstrip("/"), *(n.strip("/") for n in names)])


def _plain(path: str) -> str:
    return path.removeprefix("file://")


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn the operating system's refusals into sentences."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space and run the same command again",
            errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
            errno.EROFS: "the file system is read-only; choose another workdir",
            errno.EACCES: "permission denied; choose another workdir or change its permissions",
        }
        if error.errno is None and is_local(path) and _is_full(path):  # numpy's short writes carry no error number
            error.errno = errno.ENOSPC
        if error.errno in reasons:
            raise StorageError(f"cannot write {path}: {reasons[error.errno]}") from error
        raise


def _is_full(path: str) -> bool:
    folder = os.path.dirname(_plain(path)) or "."
    return os.path.isdir(folder) and shutil.disk_usage(folder).free < FULL_BYTES


@contextmanager
def publishing(path: str) -> Iterator[str]:
    """Yield a temporary local path; publish it as `path`, whole, if the block ends without an error.

    Raises:
        StorageError: the disk is full, read-only or refuses the write.
    """
    if is_local(path):
        target = Path(_plain(path))
        temporary = target.parent / f"{TEMPORARY}{uuid.uuid4().hex[:12]}-{target.name}"
        try:
            with _explained(path):
                target.parent.mkdir(parents=True, exist_ok=True)
                yield str(temporary)
                os.chmod(temporary, 0o666 & ~_UMASK)  # some libraries make files that only their owner reads
                os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    else:
        with tempfile.TemporaryDirectory(prefix="curate-") as folder, _explained(path):
            temporary = Path(folder) / path.rsplit("/", 1)[-1]
            yield str(temporary)
            fs, remote = url_to_fs(path)
            fs.makedirs(remote.rsplit("/", 1)[0], exist_ok=True)
            fs.put_file(str(temporary), remote)


def write_bytes(path: str, data: bytes) -> None:
    """Publish `data` as `path`, atomically."""
    with publishing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def write_json(path: str, value: Any, indent: int | None = 1) -> None:
    """Publish `value` as strict JSON (no NaN), keys in the order given."""
    write_bytes(path, (json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_bytes(path: str) -> bytes:
    """The whole file."""
    if is_local(path):
        return Path(_plain(path)).read_bytes()
    fs, remote = url_to_fs(path)
    with fs.open(remote, "rb") as file:
        return file.read()  # type: ignore[no-any-return]


def read_json(path: str) -> Any:
    """The JSON value in the file."""
    return json.loads(read_bytes(path))


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    if is_local(path):
        return os.path.exists(_plain(path))
    fs, remote = url_to_fs(path)
    return bool(fs.exists(remote))


def size(path: str) -> int:
    """Size of a file in bytes."""
    fs, remote = url_to_fs(path)
    return int(fs.size(remote))


def list_names(folder: str) -> list[str]:
    """Sorted names directly inside `folder`, temporaries left out; empty when the folder is not there."""
    if is_local(folder):
        try:
            names = os.listdir(_plain(folder))
        except FileNotFoundError:
            return []
    else:
        fs, remote = url_to_fs(folder)
        try:
            names = [p.rstrip("/").rsplit("/", 1)[-1] for p in fs.ls(remote, detail=False)]
        except FileNotFoundError:
            return []
    return sorted(n for n in names if not n.startswith(TEMPORARY))


def expand(pattern: str) -> list[str]:
    """Sorted files that match a glob pattern, a folder (its files) or a single path."""
    if is_local(pattern):
        plain = _plain(pattern)
        if os.path.isdir(plain):
            return [join(plain, n) for n in list_names(plain) if os.path.isfile(join(plain, n))]
        return sorted(glob(plain, recursive=True)) if any(c in plain for c in "*?[") else [plain]  # through links, too
    fs, remote = url_to_fs(pattern)
    if fs.isdir(remote):
        return [join(pattern, n) for n in list_names(pattern) if fs.isfile(join(remote, n))]
    return sorted(fs.unstrip_protocol(p) for p in fs.glob(remote))


IDENTITY_BYTES = 1 << 16


def identity(path: str) -> str:
    """Cheap identity of a file's, or a folder's, content: 32 hexadecimal characters.

    Hashes names, sizes and the first and last 64 KiB of each file. A change in the middle that alters neither size nor
    ends goes unseen; that is the price of planning over terabytes in seconds. Modification times do not count, so a
    copy of the data elsewhere is the same data.

    Raises:
        FileNotFoundError: nothing is there.
    """
    if is_local(path):
        return _local_identity(os.path.abspath(_plain(path)))
    fs, root = url_to_fs(path)
    files = sorted(fs.find(root)) if fs.isdir(root) else [root]
    if not files:
        raise FileNotFoundError(path)
    digest = hashlib.blake2b(digest_size=16)
    for name in files:
        size = fs.size(name)
        digest.update(f"{name.removeprefix(root)}\0{size}\0".encode())
        digest.update(fs.cat_file(name, start=0, end=min(size, IDENTITY_BYTES)))
        if size > IDENTITY_BYTES:
            digest.update(fs.cat_file(name, start=max(IDENTITY_BYTES, size - IDENTITY_BYTES), end=size))
    return digest.hexdigest()


def _local_identity(root: str) -> str:
    """`identity` of a local file or folder, the same as through fsspec."""
    files = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    if not files and not os.path.isfile(root):
        raise FileNotFoundError(root)
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(files) or [root]:
        with open(name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{name.removeprefix(root)}\0{size}\0".encode())
            digest.update(file.read(IDENTITY_BYTES))
            if size > IDENTITY_BYTES:
                file.seek(max(IDENTITY_BYTES, size - IDENTITY_BYTES))
                digest.update(file.read())
    return digest.hexdigest()


def local(path: str) -> str:
    """A local path to read `path` from: itself, or a copy of the object in the cache folder."""
    if is_local(path):
        return _plain(path)
    fs, remote = url_to_fs(path)
    info = fs.info(remote)
    stamp = f"{path}|{info.get('size')}|{info.get('ETag') or info.get('mtime') or info.get('created')}"
    cached = Path(tempfile.gettempdir()) / f"curate-cache-{os.getuid()}" / hashlib.sha256(stamp.encode()).hexdigest()
    if not cached.exists():
        with publishing(str(cached)) as temporary:
            fs.get_file(remote, temporary)
    return str(cached)


def remove_temporaries(folder: str) -> int:
    """Delete what a killed writer left behind in a local folder tree; returns how many files."""
    if not is_local(folder):
        return 0
    count = 0
    for found in Path(_plain(folder)).rglob(f"{TEMPORARY}*"):
        if found.is_dir():
            shutil.rmtree(found, ignore_errors=True)
        else:
            found.unlink(missing_ok=True)
        count += 1
    return count
