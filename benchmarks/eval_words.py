"""Class names, templates and captions of the evaluation benchmark, in many languages.

ImageNet's class names and templates are the real ones: open_clip's in English, and clip-benchmark's own files in other
languages (its multilingual ImageNet and Babel-ImageNet), so a prompt has as many tokens as it has in the world (with
CLIP's vocabulary 10 in English, 12 in Italian, 21 in Japanese, 26 in Chinese). Captions are put together from phrases,
about as long as COCO's.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np

LISTS = {"zh": "cn", "it": "it", "jp": "jp"}
"""Languages of ImageNet's class names beside English, and what clip-benchmark's files call them."""

PHRASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    # who, what they do, with what, where; separated by spaces but in Chinese
    "es": (
        ("Un hombre", "Dos mujeres", "Un niño pequeño", "Varias personas", "Una chica con abrigo rojo"),
        ("sostiene", "pasa junto a", "está mirando", "juega con", "está sentado sobre"),
        ("una bicicleta", "un perro marrón", "un tren viejo", "una mesa de madera", "un plato de comida"),
        ("en un día soleado en el parque", "cerca del puerto", "por la noche", "delante de una casa pequeña"),
    ),
    "it": (
        ("Un uomo", "Due donne", "Un bambino", "Diverse persone", "Una ragazza con il cappotto rosso"),
        ("tiene in mano", "passa davanti a", "sta guardando", "gioca con", "è seduto su"),
        ("una bicicletta", "un cane marrone", "un vecchio treno", "un tavolo di legno", "un piatto di cibo"),
        ("in una giornata di sole nel parco", "vicino al porto", "di notte", "davanti a una piccola casa"),
    ),
    "ko": (
        ("한 남자가", "두 여자가", "어린 소년이", "여러 사람이", "빨간 코트를 입은 소녀가"),
        ("공원에서 맑은 날에", "오래된 항구 근처에서", "밤에", "작은 집 앞에서"),
        ("자전거를", "갈색 개를", "낡은 기차를", "나무 탁자를", "음식 한 접시를"),
        ("들고 있다", "지나가고 있다", "바라보고 있다", "가지고 놀고 있다"),
    ),
    "pl": (
        ("Mężczyzna", "Dwie kobiety", "Mały chłopiec", "Kilka osób", "Dziewczyna w czerwonym płaszczu"),
        ("trzyma", "przechodzi obok", "patrzy na", "bawi się przy", "stoi przy"),
        ("rower", "brązowego psa", "stary pociąg", "drewniany stół", "talerz z jedzeniem"),
        ("w słoneczny dzień w parku", "niedaleko starego portu", "w nocy", "przed małym domem"),
    ),
    "ru": (
        ("Мужчина", "Две женщины", "Маленький мальчик", "Несколько человек", "Девушка в красном пальто"),
        ("держит", "проходит мимо", "смотрит на", "играет возле", "стоит рядом с"),
        ("велосипед", "коричневую собаку", "старый поезд", "деревянный стол", "тарелку с едой"),
        ("в солнечный день в парке", "недалеко от старого порта", "ночью", "перед маленьким домом"),
    ),
    "tr": (
        ("Bir adam", "İki kadın", "Küçük bir çocuk", "Birkaç kişi", "Kırmızı paltolu bir kız"),
        ("güneşli bir günde parkta", "eski limanın yakınında", "geceleyin", "küçük bir evin önünde"),
        ("bir bisiklete", "kahverengi bir köpeğe", "eski bir trene", "ahşap bir masaya", "bir tabak yemeğe"),
        ("bakıyor", "dokunuyor", "doğru yürüyor", "yaklaşıyor"),
    ),
    "zh": (
        ("一个男人", "两个女人", "一个小男孩", "几个人", "一个穿红色外套的女孩"),
        ("在阳光明媚的公园里", "在老港口附近", "晚上", "在一座小房子前"),
        ("拿着", "看着", "走过", "站在旁边看着"),
        ("一辆自行车", "一只棕色的狗", "一列旧火车", "一张木桌子", "一盘食物"),
    ),
}


@functools.cache
def imagenet(language: str = "en", lists: Path | None = None) -> tuple[list[str], list[str]]:
    """ImageNet's class names and templates.

    Args:
        lists: folder of clip-benchmark's files; English does without.
    """
    if language == "en":
        import open_clip

        return list(open_clip.IMAGENET_CLASSNAMES), [t("{c}") for t in open_clip.OPENAI_IMAGENET_TEMPLATES]
    if lists is None:
        raise SystemExit(f"class names in {language!r} are clip-benchmark's; say where its files are")
    found = []
    for what in ("classnames", "zeroshot_classification_templates"):
        path = lists / f"{LISTS[language]}_{what}.json"
        found.append([" ".join(line.split()) for line in json.loads(path.read_text("utf-8"))["imagenet1k"]])
    return found[0], found[1]


@functools.cache
def babel(language: str, lists: Path | None) -> tuple[list[str], list[str]]:
    """Babel-ImageNet's class names (of those classes that a language has) and translated templates."""
    if lists is None:
        raise SystemExit(f"class names in {language!r} are clip-benchmark's; say where its files are")
    names = json.loads((lists / "babel_imagenet.json").read_text("utf-8"))[language.upper()][1]
    templates = json.loads((lists / "nllb_dist13b_prompts.json").read_text("utf-8"))[language.upper()]
    return [" ".join(name.split()) for name in names], [" ".join(t.split()).replace("{}", "{c}") for t in templates]


def captions(rng: np.random.Generator, count: int, language: str = "en") -> list[str]:
    """As people describe photographs; in English about twelve words each."""

    def one(among: tuple[str, ...] | list[str]) -> str:
        return among[int(rng.integers(len(among)))]

    if language != "en":
        space = "" if language == "zh" else " "
        return [
            space.join(one(part) for part in PHRASES[language]) + f" {int(rng.integers(1000))}" for _ in range(count)
        ]
    names, _ = imagenet()
    who = ("a man", "two women", "a young boy", "several people", "a girl in a red coat", "an old couple", "a player")
    does = ("is holding", "walks past", "is looking at", "stands next to", "is sitting on", "plays with", "points at")
    where = (
        "on a sunny day in the park",
        "near the old harbour",
        "at night",
        "in front of a small house",
        "on a table",
    )
    return [f"{one(who)} {one(does)} a {one(names)} and a {one(names)} {one(where)}." for _ in range(count)]
