"""Why an image is refused."""

from __future__ import annotations


class ImageError(ValueError):
    """An image that cannot or may not be used.

    Attributes:
        code: stable reason: ``not_image``, ``truncated``, ``corrupt``, ``too_many_pixels``, ``too_small``, ``aspect``.
        detail: more, the same on every run; may be empty.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
