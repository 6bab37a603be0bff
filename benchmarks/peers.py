"""Peers of the benchmarks, each in a virtual environment of its own, at pinned versions.

`venv` makes an environment once and remembers it: its folder is named by a hash of interpreter and requirements, so a
change of either makes a new one and never mixes two. Peers cannot share ours: img2dataset alone needs albumentations
< 2, OpenCV < 5, pandas < 3 and webdataset < 0.3. Price: the first benchmark of a machine installs for a minute or two.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

IMG2DATASET = (
    "img2dataset==1.47.0",
    "albumentations==1.4.24",
    "opencv-python-headless==4.14.0.94",
    "webdataset==0.2.86",
    "pandas==2.3.3",
    "numpy==2.4.6",
    "pyarrow==26.0.1",
    "Pillow==11.3.0",  # it does without; the interchange check decodes with it
)
"""What pip resolves for it; Python before 3.13 only, because it imports a module that 3.13 removed."""


def cache(folder: str | None = None) -> Path:
    """Where environments and generated inputs are kept between benchmarks."""
    if folder:
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "curate-benchmarks"


def interpreter(below: tuple[int, int] | None) -> str:
    """A Python for the environment: ours, or one on the path that is older than `below`.

    Raises:
        SystemExit: there is none.
    """
    if below is None or sys.version_info[:2] < below:
        return sys.executable
    for minor in range(below[1] - 1, 9, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            return found
    raise SystemExit(f"this benchmark needs a Python before {below[0]}.{below[1]} on the path")


def venv(
    name: str, requirements: Sequence[str], folder: str | None = None, below: tuple[int, int] | None = None
) -> Path:
    """The interpreter of an environment that holds `requirements`, made if it is not there yet.

    Args:
        folder: the cache; by default ``$XDG_CACHE_HOME/curate-benchmarks``.
        below: first version of Python that is too new.

    Raises:
        SystemExit: it cannot be installed; with the installer's last words.
    """
    base = interpreter(below)
    version = subprocess.run([base, "-V"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.blake2b("\n".join([version, *requirements]).encode(), digest_size=4).hexdigest()
    place = cache(folder) / f"{name}-{digest}"
    python = place / "bin" / "python"
    done = place / "requirements.txt"
    if done.exists():
        return python
    print(f"making the environment of {name} in {place}", file=sys.stderr, flush=True)
    shutil.rmtree(place, ignore_errors=True)
    steps = ([base, "-m", "venv", str(place)], [str(python), "-m", "pip", "install", "-q", *requirements])
    for step in steps:
        result = subprocess.run(step, capture_output=True, text=True)
        if result.returncode:
            raise SystemExit(f"{name} cannot be installed: {' '.join(step[:4])} ...\n{result.stderr[-2000:]}")
    done.write_text("\n".join(requirements) + "\n")
    return python
