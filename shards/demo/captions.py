"""The demo's captions: sentences that name a digit in English or another language, and those that say nothing.

Every English sentence, with any of the twenty ways to name a digit, is English to fastText's lid.176 (the compressed
one), and no foreign one is. The vocabulary is kept small, so that a text tower of a few layers can learn it in minutes.
"""

from __future__ import annotations

import numpy as np

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

ENGLISH = (
    "a photo of the number {c}",
    "a handwritten {c}",
    "a picture of a handwritten {c}",
    "a small picture of the number {c}",
    "a note with the digit {c} on it",
    "one of my drawings of the number {c}",
    "here is the digit {c} from an old form",
    "my handwriting: the number {c}",
    "someone wrote the number {c}",
    "the digit {c} written by hand",
    "the number {c} in ink on paper",
    "the {c} on this page was written with a pen",
    "there is a handwritten {c} in this picture",
    "this is the number {c}",
    "this picture shows the digit {c}",
    "what a nice handwritten {c}",
)

FOREIGN = {
    "de": (
        "null eins zwei drei vier fünf sechs sieben acht neun",
        ("ein Foto der Ziffer {c}", "die handgeschriebene Zahl {c}", "auf diesem Bild steht die Zahl {c}"),
    ),
    "fr": (
        "zéro un deux trois quatre cinq six sept huit neuf",
        ("une photo du chiffre {c}", "le chiffre {c} écrit à la main", "sur cette image on voit le nombre {c}"),
    ),
    "es": (
        "cero uno dos tres cuatro cinco seis siete ocho nueve",
        ("una foto del número {c}", "el número {c} escrito a mano", "esta imagen muestra la cifra {c}"),
    ),
    "it": (
        "zero uno due tre quattro cinque sei sette otto nove",
        ("una foto della cifra {c}", "il numero {c} scritto a mano", "questa immagine mostra il numero {c}"),
    ),
    "pt": (
        "zero um dois três quatro cinco seis sete oito nove",
        ("uma foto do número {c}", "o número {c} escrito à mão", "esta imagem mostra o algarismo {c}"),
    ),
    "nl": (
        "nul een twee drie vier vijf zes zeven acht negen",
        ("een foto van het cijfer {c}", "op deze afbeelding staat het cijfer {c}"),
    ),
    "pl": (
        "zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć",
        ("zdjęcie cyfry {c}", "na tym obrazku widać cyfrę {c}"),
    ),
    "sv": (
        "noll ett två tre fyra fem sex sju åtta nio",
        ("ett foto av siffran {c}", "den här bilden visar siffran {c}"),
    ),
    "ru": ("ноль один два три четыре пять шесть семь восемь девять", ("фотография цифры {c}",)),
    "ja": ("零 一 二 三 四 五 六 七 八 九", ("手書きの数字{c}の写真", "これは数字の{c}です")),
}
"""Language -> the ten digit words and some sentences."""

BOILERPLATE = (
    "img_{n}",
    "DSC0{n}.JPG",
    "buy now",
    "untitled",
    "thumbnail",
    "Home | Gallery | Contact",
    "click here to see the full picture",
    "free shipping on all orders this week",
    "sign in to leave a comment",
    "all rights reserved",
    "no description available for this image",
)

SHORT = ("{c}", "digit {c}", "no. {c}", "the {c}")

NUMERALS = 0.4  # share of captions that write the digit as a numeral


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _name(rng: np.random.Generator, digit: int, words: tuple[str, ...]) -> str:
    return str(digit) if rng.random() < NUMERALS else words[digit]


def sentence(rng: np.random.Generator, digit: int) -> str:
    """An English sentence that names `digit`."""
    return _pick(rng, ENGLISH).replace("{c}", _name(rng, digit, WORDS))


def foreign(rng: np.random.Generator, digit: int) -> tuple[str, str]:
    """A sentence in another language that names `digit`, and the language's code."""
    language = _pick(rng, tuple(FOREIGN))
    words, templates = FOREIGN[language]
    return _pick(rng, templates).replace("{c}", _name(rng, digit, tuple(words.split()))), language


def boilerplate(rng: np.random.Generator) -> str:
    """What pages write beside any picture; some of it is good English."""
    return _pick(rng, BOILERPLATE).replace("{n}", f"{int(rng.integers(10_000)):04d}")


def short(rng: np.random.Generator, digit: int) -> str:
    """`digit` in one or two words."""
    return _pick(rng, SHORT).replace("{c}", _name(rng, digit, WORDS))
