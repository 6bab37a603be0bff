"""The README.md of a trained model: what is known about how it came about, and nothing else.

Names of subsets, models and licences come from people and may hold anything; they stand in code spans, which neither
Markdown nor HTML looks into, without line breaks and invisible characters. The card holds no clock time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CARD_FILE = "README.md"
CURVE_LINES = 10


@dataclass(frozen=True)
class CardFacts:
    """What the trainer cannot know about a model.

    Attributes:
        subset: name of the data that it was trained on.
        fingerprint: of that data.
        license: of the weights, as an identifier such as ``mit``; "" = none is claimed.
    """

    subset: str = ""
    fingerprint: str = ""
    license: str = ""


def model_card(
    name: str,
    record: Mapping[str, Any],
    facts: CardFacts,
    log: Sequence[Mapping[str, float]] = (),
    validation: Sequence[Mapping[str, float]] = (),
    averaged: bool = False,
    pairs: bool = True,
) -> str:
    """The card.

    Args:
        name: of the architecture.
        record: ``recipe`` (its options) and the fields of the training's report.
        log, validation: lines, in order.
        averaged: whether the published weights are the moving average of the trained ones.
        pairs: whether it is a model of pictures and text; else a classifier.
    """
    parts = [_front_matter(facts, pairs), f"# {code(name)}\n", _data(facts, record), _training(record, averaged)]
    parts += [_curve(log), _validation(validation), _use(averaged, pairs)]
    return "\n".join(p for p in parts if p)


def _front_matter(facts: CardFacts, pairs: bool) -> str:
    tag = "zero-shot-image-classification" if pairs else "image-classification"
    lines = ["---", *(["library_name: open_clip"] if pairs else []), f"pipeline_tag: {tag}"]
    if facts.license:
        lines.append(f"license: {json.dumps(_visible(facts.license))}")  # a JSON string is a YAML string
    return "\n".join([*lines, "---", ""])


def _data(facts: CardFacts, record: Mapping[str, Any]) -> str:
    rows = [
        ("subset", code(facts.subset) if facts.subset else ""),
        ("fingerprint", code(facts.fingerprint) if facts.fingerprint else ""),
        ("samples per epoch", _number(record.get("samples"))),
        ("distinct samples", _number(record.get("distinct"))),
        ("left out for want of a caption", _number(record.get("without_caption"))),
        ("images that could not be decoded", _number(record.get("corrupt"))),
        ("samples that stood in for them", _number(record.get("replaced"))),
    ]
    return "## Data\n\n" + _table(("", ""), rows)


def _training(record: Mapping[str, Any], averaged: bool) -> str:
    recipe = record.get("recipe", {})
    rows = [
        ("samples seen", _number(record.get("samples_seen"))),
        ("epochs", _number(record.get("epochs"))),
        ("steps", _number(record.get("steps"))),
        ("seed", str(record["seed"]) if "seed" in record else ""),
        ("parameters", _number(record.get("parameters"))),
        ("weights", "moving average of the trained weights" if averaged else "as trained"),
        *((f"recipe: {code(option)}", code(value)) for option, value in sorted(flat(recipe).items())),
    ]
    return "## Training\n\n" + _table(("", ""), rows)


def _curve(log: Sequence[Mapping[str, float]]) -> str:
    if not log:
        return ""
    some = sorted({round(i * (len(log) - 1) / max(1, CURVE_LINES - 1)) for i in range(CURVE_LINES)})
    rows = [(_number(log[i].get("samples_seen")), f"{log[i]['loss']:.4f}") for i in some if "loss" in log[i]]
    return "## Loss\n\n" + _table(("samples seen", "training loss"), rows)


def _validation(validation: Sequence[Mapping[str, float]]) -> str:
    if not validation:
        return "## Evaluation\n\nNone was made during training.\n"
    last = validation[-1]
    rows = [(code(key), _number(value)) for key, value in last.items()]
    return "## Evaluation\n\nOn the validation set, at the end of training.\n\n" + _table(("measure", "value"), rows)


def _use(averaged: bool, pairs: bool) -> str:
    text = "## Use\n"
    if pairs:
        text += "\n```python\nimport open_clip\n\n"
        text += 'model, preprocess = open_clip.create_model_from_pretrained("local-dir:FOLDER")\n```\n'
    else:
        text += "\nThe weights are in safetensors' format; `classifier.json` names the classes in their order.\n"
    if averaged:
        text += "\nThe weights before averaging are `state_dict_trained` in `checkpoints/epoch_latest.pt`.\n"
    return text


def flat(value: Mapping[str, Any], name: str = "") -> dict[str, str]:
    """Nested options on one level, ``{"optimizer": {"lr": 1}}`` -> ``{"optimizer.lr": "1"}``; a value is one line."""
    found: dict[str, str] = {}
    for key, item in value.items():
        inner = f"{name}.{key}" if name else str(key)
        if isinstance(item, Mapping) and item:
            found |= flat(item, inner)
        elif isinstance(item, list | tuple | Mapping):
            found[inner] = json.dumps(item)
        else:
            found[inner] = _visible(str(item))
    return found


def code(text: str) -> str:
    """`text` as a Markdown code span that holds in a table, whatever is in it."""
    text = _visible(text).replace("|", "\\|")
    ticks = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    room = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{ticks}{room}{text}{room}{ticks}"


def _visible(text: str) -> str:
    """In one line, without characters that cannot be seen or that reorder text."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows if b)]
    return "\n".join(lines) + "\n"
