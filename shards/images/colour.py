"""Colours to sRGB: ICC profiles of RGB, gray and CMYK pictures.

Nearly every profile on the web is sRGB itself under some name: a profile that changes no colour by more than two levels
is not applied. A broken profile is as good as none; viewers do the same.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms

_TRANSFORMS: dict[tuple[bytes, str], Any] = {}
_MOST_TRANSFORMS = 16  # remembered, by digest: profiles may be megabytes
_BROKEN = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def _transform(profile: bytes, mode: str) -> Any:
    """The conversion of a profile to sRGB; None when there is nothing to convert or the profile is unusable."""
    key = (hashlib.sha256(profile).digest(), mode)
    if key not in _TRANSFORMS:
        if len(_TRANSFORMS) >= _MOST_TRANSFORMS:
            _TRANSFORMS.pop(next(iter(_TRANSFORMS)))
        _TRANSFORMS[key] = _build(profile, mode)
    return _TRANSFORMS[key]


def _build(profile: bytes, mode: str) -> Any:
    levels = np.arange(256, dtype=np.uint8)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        if mode == "L":
            seen = ImageCms.applyTransform(Pillow.fromarray(levels[None]), transform)
            table = np.asarray(seen)[0]
            return table if int(np.abs(table.astype(np.int16) - levels[:, None]).max()) > 2 else None
        cube = np.stack(np.meshgrid(levels[::17], levels[::17], levels[::17]), axis=-1).reshape(16, -1, 3)
        seen = ImageCms.applyTransform(Pillow.fromarray(cube), transform)
    except _BROKEN:
        return None
    return transform if int(np.abs(np.asarray(seen).astype(np.int16) - cube).max()) > 2 else None


def converts(profile: bytes, gray: bool = False) -> bool:
    """Whether a profile changes colours."""
    return bool(profile) and _transform(profile, "L" if gray else "RGB") is not None


def to_srgb(pixels: np.ndarray, profile: bytes, gray: bool = False) -> np.ndarray:
    """Convert ``(h, w, 3) uint8`` from their ICC profile to sRGB; without a usable profile they are sRGB already."""
    transform = _transform(profile, "L" if gray else "RGB") if profile else None
    if transform is None:
        return pixels
    if gray:
        return transform[pixels[:, :, 0]]
    return np.asarray(ImageCms.applyTransform(Pillow.fromarray(np.ascontiguousarray(pixels)), transform))


def from_cmyk(image: Pillow.Image, profile: bytes) -> np.ndarray:
    """Pixels of a CMYK image as ``(h, w, 3) uint8`` sRGB, by its profile if it has a usable one."""
    transform = _transform(profile, "CMYK") if profile else None
    if transform is not None:
        return np.asarray(ImageCms.applyTransform(image, transform))
    return np.asarray(image.convert("RGB"))
