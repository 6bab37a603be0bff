"""Small evaluation sets of every kind, drawn from the held-out real scans of the demo's digits.

So every suite runs offline on real handwriting in seconds. A set's ``test`` split uses the 450 test scans and its
``train`` split the 200 train scans of `demo.digits.split`, which are never in the demo's pool; drawings differ from set
to set by their own random streams. All writers always write the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..demo import digits
from ..demo.captions import FOREIGN, WORDS
from .base import LanguageTexts
from .write import (
    write_association,
    write_compositional,
    write_evalset,
    write_groups,
    write_languages,
    write_multilabel,
    write_retrieval,
)

_SEED = 20_240_103  # of all sets here; their own number follows
SIDE = 32  # pixels of one drawn digit
SPLITS = ("test", "train")

RETRIEVAL_CAPTIONS = (
    "the digits {0}, {1} and {2}, written by hand",
    "from left to right: {0}, {1}, {2}",
    "a handwritten {0}, then a {1}, then a {2}",
    "someone wrote {0} {1} {2} on paper",
    "a photo of the numbers {0}, {1} and {2} in a row",
)
COUNTS = ("one digit", "two digits", "three digits", "four digits", "five digits")
PLACES = ("top left", "top right", "bottom left", "bottom right")
SHIFTS = ("inverted", "rotated", "noisy")
STYLES = ("ink on paper", "chalk on board")
CUES: dict[str, tuple[int, ...]] = {
    "even number": (0, 2, 4, 6, 8),
    "odd number": (1, 3, 5, 7, 9),
    "loop": (0, 6, 8, 9),
    "straight line": (1, 4, 7),
    "prime number": (2, 3, 5, 7),
    "small number": (0, 1, 2, 3),
}
CANDIDATES = (5, 6, 10, 12)  # of an association, as WinoGAViL has them


def write_digits(folder: str) -> None:
    """Classification: the demo's own set."""
    digits.write_digits_evalset(folder)


def write_digits_retrieval(folder: str) -> None:
    """Retrieval: three digits in a row, no two pictures the same three; five captions each."""

    def pictures(split: str) -> Iterator[tuple[bytes, list[str]]]:
        seen: set[tuple[int, ...]] = set()
        for number, scans in enumerate(_dealt(split, 1, 3)):
            turns = [np.roll(order, turn) for order in (scans, scans[::-1]) for turn in range(3)]
            chosen = next((t for t in turns if _labels(t) not in seen), None)
            if chosen is None:
                continue  # all ways to lay these three are taken
            seen.add(_labels(chosen))
            words = [WORDS[label] for label in _labels(chosen)]
            yield _webp(_row(chosen, 1, number)), [caption.format(*words) for caption in RETRIEVAL_CAPTIONS]

    write_retrieval(folder, {split: pictures(split) for split in SPLITS})


def write_digits_pairs(folder: str) -> None:
    """Compositional: two different digits side by side and the same two the other way round, with their captions."""

    def instances(split: str) -> Iterator[tuple[list[bytes], list[str]]]:
        for number, scans in enumerate(_dealt(split, 2, 2)):
            left, right = (WORDS[label] for label in _labels(scans))
            if left != right:
                images = [_webp(_row(order, 2, number)) for order in (scans, scans[::-1])]
                yield images, [f"a {one} left of a {other}" for one, other in ((left, right), (right, left))]

    write_compositional(folder, {split: instances(split) for split in SPLITS})


def write_digits_multilabel(folder: str) -> None:
    """Multi-label: two or three digits in one picture; right are those that are there."""

    def pictures(split: str) -> Iterator[tuple[bytes, np.ndarray]]:
        for number, scans in enumerate(_dealt(split, 3, 3)):
            some = scans[: 2 + number % 2]
            right = np.zeros(len(WORDS), np.uint8)
            right[list(_labels(some))] = 1
            yield _webp(_row(some, 3, number)), right

    templates = ("a picture with a handwritten {c} in it", "some digits, one of them a {c}")
    write_multilabel(folder, WORDS, templates, {split: pictures(split) for split in SPLITS})


def write_digits_shift(folder: str) -> None:
    """Classification under distribution shift: the digits' classes, inverted, turned by 25 to 60 degrees, or noisy.

    Which shift a picture has is its group.
    """

    def pictures(split: str) -> Iterator[tuple[bytes, int, tuple[int]]]:
        for number, scan in enumerate(digits.split()[split]):
            kind = number % len(SHIFTS)
            yield _webp(_shifted(int(scan), kind)), _labels([scan])[0], (kind,)

    write_groups(folder, WORDS, digits.EVAL_TEMPLATES, {"shift": SHIFTS}, {split: pictures(split) for split in SPLITS})


def write_digits_groups(folder: str) -> None:
    """Classification with groups: dark ink on light paper, or (rarer, and harder) chalk on a board; and two sizes."""

    def pictures(split: str) -> Iterator[tuple[bytes, int, tuple[int, int]]]:
        for scan in digits.split()[split]:
            rng = digits.random(_SEED, 5, int(scan))
            style, large = int(rng.random() < 0.3), int(rng.random() < 0.5)
            picture = digits.render(digits.scans().images[scan], rng, 48 if large else 28)
            yield _webp(255 - picture if style else picture), _labels([scan])[0], (style, large)

    fields = {"style": STYLES, "size": ("small", "large")}
    write_groups(folder, WORDS, digits.EVAL_TEMPLATES, fields, {split: pictures(split) for split in SPLITS})


def write_digits_count(folder: str) -> None:
    """Structured classification: how many digits there are, one to five, in places of a grid."""

    def pictures(split: str) -> Iterator[tuple[bytes, int]]:
        for number, scans in enumerate(_dealt(split, 6, 3)):
            rng = digits.random(_SEED, 6, _part(split), number)
            count = number % len(COUNTS) + 1
            several = np.resize(scans, count)
            yield _webp(_laid(several, rng.permutation(9)[:count], 3, 24, rng)), count - 1

    templates = ("a picture with {c}", "there are {c} on this page")
    write_evalset(folder, COUNTS, templates, {split: pictures(split) for split in SPLITS})


def write_digits_position(folder: str) -> None:
    """Structured classification: in which corner the digit is."""

    def pictures(split: str) -> Iterator[tuple[bytes, int]]:
        for number, scan in enumerate(digits.split()[split]):
            place = number % len(PLACES)
            yield _webp(_laid([scan], [place], 2, SIDE, digits.random(_SEED, 7, int(scan)))), place

    templates = ("a digit in the {c} corner", "a page with a number at the {c}")
    write_evalset(folder, PLACES, templates, {split: pictures(split) for split in SPLITS})


def write_digits_languages(folder: str) -> None:
    """Classification with names of the classes in German (all), French (eight) and Spanish (five), and templates."""
    write_evalset(folder, WORDS, digits.EVAL_TEMPLATES, {split: digits.held_out(split) for split in SPLITS})
    subsets = {"de": range(10), "fr": range(8), "es": range(0, 10, 2)}
    found = {}
    for language, covered in subsets.items():
        words, templates = FOREIGN[language][0].split(), FOREIGN[language][1]
        found[language] = LanguageTexts(tuple(covered), tuple(words[number] for number in covered), templates)
    write_languages(folder, found)


def write_digits_association(folder: str) -> None:
    """Association: a cue such as "even number", and 5, 6, 10 or 12 digits of which two to five fit it."""
    scans = digits.split()["test"][:200]
    labels = np.asarray(_labels(scans))
    keys = [f"p{number:04d}" for number in range(len(scans))]

    def pictures() -> Iterator[tuple[str, bytes]]:
        for key, scan in zip(keys, scans, strict=True):
            yield key, _webp(digits.render(digits.scans().images[scan], digits.random(_SEED, 9, int(scan)), SIDE))

    def instances() -> Iterator[tuple[str, list[str], list[str]]]:
        for number in range(120):
            rng = digits.random(_SEED, 9, 1 << 20, number)
            cue = tuple(CUES)[number % len(CUES)]
            size = CANDIDATES[number % len(CANDIDATES)]
            fits = np.isin(labels, CUES[cue])
            count = int(rng.integers(2, min(size - 1, 5) + 1))
            right = rng.permutation(np.flatnonzero(fits))[:count]
            wrong = rng.permutation(np.flatnonzero(~fits))[: size - count]
            candidates = rng.permutation(np.concatenate([right, wrong]))
            yield cue, [keys[place] for place in candidates], [keys[place] for place in sorted(right)]

    write_association(folder, {"test": (pictures(), instances())})


def _part(split: str) -> int:
    return SPLITS.index(split)


def _labels(scans: Sequence[int] | np.ndarray) -> tuple[int, ...]:
    return tuple(int(label) for label in digits.scans().labels[np.asarray(scans)])


def _dealt(split: str, stream: int, size: int) -> list[np.ndarray]:
    """The scans of a split, shuffled and dealt into hands of `size`; what is left over is not used."""
    scans = digits.random(_SEED, stream, _part(split)).permutation(digits.split()[split])
    return list(scans[: len(scans) // size * size].reshape(-1, size))


def _row(scans: Sequence[int] | np.ndarray, stream: int, number: int) -> np.ndarray:
    """Digits side by side, each drawn in its own way, the same wherever it stands in the row."""
    return np.concatenate(
        [digits.render(digits.scans().images[s], digits.random(_SEED, stream, number, int(s)), SIDE) for s in scans], 1
    )


def _laid(
    scans: Sequence[int] | np.ndarray,
    places: Sequence[int] | np.ndarray,
    across: int,
    side: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Digits in some cells of a grid of `across` by `across`, on light paper."""
    page = np.full((across * side, across * side, 3), 235, np.uint8)
    for scan, place in zip(scans, places, strict=True):
        top, left = divmod(int(place), across)
        drawn = digits.render(digits.scans().images[scan], rng, side)
        page[top * side : (top + 1) * side, left * side : (left + 1) * side] = drawn
    return page


def _shifted(scan: int, kind: int) -> np.ndarray:
    rng = digits.random(_SEED, 4, scan)
    ink = digits.scans().images[scan]
    if kind == 1:
        from PIL import Image

        angle = float((25 + 35 * rng.random()) * (1 if rng.random() < 0.5 else -1))
        turned = Image.fromarray(ink.astype(np.float32)).rotate(angle, Image.Resampling.BICUBIC)
        ink = np.clip(np.asarray(turned), 0, 16)
    picture = digits.render(ink, rng, SIDE)
    if kind == 0:
        return 255 - picture
    if kind == 2:
        noise = rng.normal(0, 60, picture.shape)
        return np.clip(picture + noise, 0, 255).astype(np.uint8)
    return picture


def _webp(picture: np.ndarray) -> bytes:
    return digits.encode(np.ascontiguousarray(picture), "webp", 100)
