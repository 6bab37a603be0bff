"""A set of coloured pixels and a model of four numbers, for tests of what lies on disk afterwards."""

import io

import numpy as np
from PIL import Image

from curate.shards.images.image import decode_rgb

WORDS = ("one", "two")


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (number * 7 % 256, number % 5 * 40, 9)).save(file, "PNG")
    return file.getvalue()


class Hears:
    """Pixels, and the first letters of a text."""

    dim, precision, digest = 4, "fp32", "5" * 32

    def encode_images(self, images):
        rows = np.stack([[*decode_rgb(image)[0, 0], 1] for image in images]).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts):
        rows = np.stack([np.frombuffer(f"{text:~<4}".encode()[:4], np.uint8) for text in texts]).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
