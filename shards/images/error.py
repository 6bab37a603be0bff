"""Why an image is refused: every code, in one place."""

from __future__ import annotations

CODES = {
    "not_image": "The bytes are no image; the detail says what they look like (html, svg, json, ...).",
    "unsupported": "An image of a kind that is not read; the detail names it (heic, ico, arithmetic JPEG, ...).",
    "truncated": "The file ends before its pixels do; nothing is filled up.",
    "corrupt": "The file contradicts itself or cannot be decoded.",
    "too_many_pixels": "More pixels than `max_pixels`, or than fit `max_memory`, before or after resizing.",
    "too_small": "The shorter side has fewer pixels than `min_side`.",
    "aspect": "The longer side is more than `max_aspect` times the shorter.",
    "animated": "More than one picture in the file, and `animated` is `refuse`.",
    "bad_boxes": "Boxes to blur that cannot be understood: storing the picture could show what they hide.",
}


class ImageError(ValueError):
    """An image that cannot or may not be used.

    Attributes:
        code: stable reason, a key of `CODES`.
        detail: more, the same on every run; may be empty.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail
