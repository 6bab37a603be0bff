"""Versions of what results depend on, for receipts and the report."""

from __future__ import annotations

import importlib.metadata
import platform

RECORDED = ("curate", "torch", "open_clip_torch", "faiss-cpu", "numpy", "pyarrow", "ray", "scikit-learn")


def versions() -> dict[str, str]:
    """Of Python and of those of `RECORDED` that are installed."""
    found = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
