"""uid: the 128-bit id of a sample, and the subset file that lists them.

A uid is 32 lower-case hexadecimal characters. In arrays it is the record ``(f0, f1)`` of two little-endian
uint64, high half first, so that sorting records equals sorting text. A subset file is DataComp's: ``np.save`` of
the sorted records, a repeated uid meaning that the sample is repeated.
Source: DataComp's released subset files; see docs/formats.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from ..errors import DataError
from . import storage

RECORD = np.dtype([("f0", "<u8"), ("f1", "<u8")])


def stable_uid(*fields: str) -> str:
    """uid of a sample that has none: BLAKE2b-128 of its identifying fields (say, url and caption)."""
    digest = hashlib.blake2b(digest_size=16)
    for field in fields:
        data = field.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def to_records(uids: Sequence[str] | Iterable[str]) -> np.ndarray:
    """Hex text -> records, shape ``(n,)`` of `RECORD`.

    Raises:
        DataError: a uid that is not 1-32 hexadecimal characters. Shorter ones lost leading zeros and are padded.
    """
    texts = list(uids)
    if not texts:
        return np.empty(0, RECORD)
    joined = "".join(t if len(t) == 32 else t.rjust(32, "0") for t in texts)
    if len(joined) != 32 * len(texts):
        bad = next(t for t in texts if len(t) > 32)
        raise DataError(f"uid {bad!r} is longer than 32 hexadecimal characters")
    try:
        raw = bytes.fromhex(joined) if all(texts) else b""
    except ValueError:
        raw = b""
    if len(raw) != RECORD.itemsize * len(texts):  # `fromhex` passes over white space
        bad = next(t for t in texts if not t or t.strip("0123456789abcdefABCDEF"))
        raise DataError(f"uid {bad!r} is not hexadecimal text")
    return _from_bytes(raw)


def _from_bytes(raw: bytes) -> np.ndarray:
    """Records of 16 big-endian bytes each."""
    halves = np.frombuffer(raw, ">u8").reshape(-1, 2)
    records = np.empty(len(halves), RECORD)
    records["f0"], records["f1"] = halves[:, 0], halves[:, 1]
    return records


def column_records(column: pa.ChunkedArray) -> np.ndarray:
    """`to_records` of a text column, many times faster where all uids have 32 characters: no strings are made."""
    found = [np.empty(0, RECORD)]
    for chunk in column.chunks:
        raw = _text(chunk)
        try:
            decoded = b"" if raw is None else bytes.fromhex(raw)
        except ValueError:
            decoded = b""
        whole = len(decoded) == RECORD.itemsize * len(chunk)
        found.append(_from_bytes(decoded) if whole else to_records(chunk.to_pylist()))
    return np.concatenate(found)


def _text(chunk: pa.Array) -> str | None:
    """All texts of an array in a row, if each has 32 characters; else None."""
    if not (pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type)) or chunk.null_count:
        return None
    width = np.int32 if pa.types.is_string(chunk.type) else np.int64
    _, offsets, data = chunk.buffers()
    if offsets is None or data is None:
        return None
    ends = np.frombuffer(offsets, width)[chunk.offset : chunk.offset + len(chunk) + 1]
    if len(ends) < 2 or (np.diff(ends) != 32).any():
        return None
    try:
        return memoryview(data)[ends[0] : ends[-1]].tobytes().decode("ascii")
    except UnicodeDecodeError:
        return None


def to_text(records: np.ndarray) -> list[str]:
    """Records -> hex text, the inverse of `to_records`."""
    halves = np.empty((len(records), 2), ">u8")
    halves[:, 0], halves[:, 1] = records["f0"], records["f1"]
    text = halves.tobytes().hex()
    return [text[i : i + 32] for i in range(0, len(text), 32)]


def argsort(records: np.ndarray) -> np.ndarray:
    """Stable order of the records by ``(f0, f1)``; twice as fast as sorting the structured array."""
    return np.lexsort((records["f1"], records["f0"]))


def write_subset(path: str, uids: np.ndarray) -> None:
    """Publish records (in any order, repeats allowed) as a sorted DataComp subset file."""
    records = uids[argsort(uids)]
    with storage.publishing(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array(file, records, version=(1, 0), allow_pickle=False)


def read_subset(path: str) -> np.ndarray:
    """Records of a subset file: ``.npy``, or DataComp's headerless raw form.

    Raises:
        DataError: the file is neither.
    """
    found = storage.local(path)
    with open(found, "rb") as file:
        magic = file.read(6)
    if magic == b"\x93NUMPY":
        array = np.load(found, allow_pickle=False)
        if array.dtype != RECORD or array.ndim != 1:
            raise DataError(f"{path}: dtype {array.dtype} is not a subset file's ('<u8', '<u8')")
        return array
    raw = np.fromfile(found, np.uint8)
    if raw.size % RECORD.itemsize:
        raise DataError(f"{path}: neither a .npy file nor raw 16-byte uid records")
    return raw.view(RECORD)


def map_subset(path: str) -> np.ndarray:
    """As `read_subset`, mapped read-only instead of read: a subset of a billion uids costs no memory."""
    found = storage.local(path)
    with open(found, "rb") as file:
        is_npy = file.read(6) == b"\x93NUMPY"
        size = file.seek(0, 2)
    if is_npy:
        try:
            array = np.load(found, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
        if array.dtype != RECORD or array.ndim != 1:
            raise DataError(f"{path}: dtype {array.dtype} is not a subset file's ('<u8', '<u8')")
        return array
    if size % RECORD.itemsize:
        raise DataError(f"{path}: neither a .npy file nor raw 16-byte uid records")
    return np.memmap(found, RECORD, "r") if size else np.empty(0, RECORD)


def distinct(subset: np.ndarray, where: str = "subset", block: int = 1 << 22) -> int:
    """Number of different uids in sorted records, looked through in blocks.

    Raises:
        DataError: they are not sorted.
    """
    count = 0
    for start in range(0, len(subset), block):
        part = np.asarray(subset[max(0, start - 1) : start + block])
        high, low = part["f0"], part["f1"]
        same = high[1:] == high[:-1]
        if ((high[1:] < high[:-1]) | (same & (low[1:] < low[:-1]))).any():
            raise DataError(f"{where}: the uids are not sorted; write it with curate.shards.uid.write_subset")
        count += int((~(same & (low[1:] == low[:-1]))).sum()) + (start == 0)
    return count


def lookup(subset: np.ndarray, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where uids are in a sorted subset, and how often.

    All are searched side by side, so that a mapped subset of any size is touched in a few places only.

    Args:
        subset: ``(n,)`` sorted records, mapped or in memory.
        records: ``(m,)`` records in any order.

    Returns:
        ``(m,) int64`` place of the first equal record, or where it would be; and ``(m,) int64`` how many equal it.
    """
    left = _bisect(subset, records, right=False)
    count = np.zeros(len(records), np.int64)
    inside = np.flatnonzero(left < len(subset))
    at = subset[left[inside]]
    found = inside[(at["f0"] == records["f0"][inside]) & (at["f1"] == records["f1"][inside])]
    if len(found):
        count[found] = _bisect(subset, records[found], right=True) - left[found]
    return left, count


def _bisect(subset: np.ndarray, records: np.ndarray, right: bool) -> np.ndarray:
    """First place whose record is not less than (`right`: is greater than) each of `records`."""
    high, low = np.ascontiguousarray(records["f0"]), np.ascontiguousarray(records["f1"])
    start, stop = np.zeros(len(records), np.int64), np.full(len(records), len(subset), np.int64)
    for _ in range(len(subset).bit_length()):
        middle = np.minimum((start + stop) // 2, len(subset) - 1)
        at = subset[middle]
        less = (at["f1"] <= low) if right else (at["f1"] < low)
        less = ((at["f0"] < high) | ((at["f0"] == high) & less)) & (start < stop)
        open_ = start < stop
        start = np.where(less, middle + 1, start)
        stop = np.where(open_ & ~less, middle, stop)
    return start


def canonical(given: Iterable[str | None], made: Iterable[str], where: str) -> list[str]:
    """uids of samples as text: lower case, 32 characters; where `given` has none, the one in `made`.

    Raises:
        DataError: a given uid is not 1-32 hexadecimal characters; `where` tells of which file.
    """
    uids = []
    for row, (old, new) in enumerate(zip(given, made, strict=True)):
        uid = old.lower().rjust(32, "0") if old else new
        if len(uid) != 32 or uid.strip("0123456789abcdef"):
            raise DataError(
                f"{where}: uid {old!r} (row {row} of the shard) is not 1-32 hexadecimal characters; "
                "name another column, or none, with `uid:`"
            )
        uids.append(uid)
    return uids
