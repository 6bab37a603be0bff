"""The 19 tasks of VTAB-1k, their positional splits, and the means over them (Zhai et al., arXiv 1910.04867).

Not DataComp's 13 zero-shot tasks of the same name, nor CLIP_benchmark's ``vtab/*``, which are zero-shot on whole test
splits, some with other classes (dSprites with 32 and 40). VTAB-1k learns from 1,000 images per task, scores top-1 on
the whole test split everywhere, and averages all 19 tasks and three groups of them.

Its splits are slices of the order in which TFDS reads a split, written as TFDS writes them (``test[50%:]``). They are
not stratified, and a class can be missing from the 1,000. A set's splits must therefore be whole and in that order;
sizes are checked, the order cannot be. A set may also hold the slices themselves, as splits ``train800``, ``val200``
and ``test``. Labels are those of the task: structured tasks map attributes to classes (objects - 3, thresholds of
distance, 32 positions to 16), and that mapping is in the set's labels already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ...errors import DataError
from ...shards.evalsets.base import EvalSet

Group = Literal["natural", "specialized", "structured"]
GROUPS: tuple[Group, ...] = get_args(Group)
_PART = re.compile(r"(?P<split>[A-Za-z0-9_]+)(?:\[(?P<start>\d+%?)?:(?P<stop>\d+%?)?\])?")


class Slice(NamedTuple):
    """Rows ``start`` to ``stop`` (not included) of a split."""

    split: str
    start: int
    stop: int


@dataclass(frozen=True)
class VtabTask:
    """One task.

    Attributes:
        name: ours, and VTAB's where it is short enough.
        group: which mean it enters.
        classes: number of classes.
        val200: slice that hyper-parameters are chosen on; they are tried on ``train[:800]``.
        test: slice that is scored.
        sizes: images of each split that the slices count in.
        names: other names of it, TFDS's and CLIP_benchmark's.
    """

    name: str
    group: Group
    classes: int
    val200: str
    test: str
    sizes: Mapping[str, int]
    names: tuple[str, ...] = ()
    train800: str = "train[:800]"
    first1000: str = "train[:1000]"

    @property
    def train1000(self) -> str:
        """What the final head of the linear protocol learns from."""
        return f"{self.train800}+{self.val200}"

    def splits(self, *slices: str) -> list[str]:
        """Names of the splits that some slices count in."""
        return list(dict.fromkeys(part.split for text in slices for part in parse_slices(text, self.sizes)))


def _three(train: int, validation: int, test: int) -> dict[str, int]:
    return {"train": train, "validation": validation, "test": test}


_OF_VALIDATION = "validation[:200]"
_CLEVR = {"train": 70_000, "validation": 15_000}
_DSPRITES = {"train": 737_280}
_NORB = {"train": 24_300, "test": 24_300}

TASKS: tuple[VtabTask, ...] = (
    VtabTask("caltech101", "natural", 102, "train[2753:2953]", "test", {"train": 3059, "test": 6085}),
    VtabTask("cifar100", "natural", 100, "train[45000:45200]", "test", {"train": 50_000, "test": 10_000}, ("cifar",)),
    VtabTask("dtd", "natural", 47, _OF_VALIDATION, "test", _three(1880, 1880, 1880)),
    VtabTask(
        "flowers102", "natural", 102, _OF_VALIDATION, "test", _three(1020, 1020, 6149), ("oxford_flowers102", "flowers")
    ),
    VtabTask(
        "pets", "natural", 37, "train[2944:3144]", "test", {"train": 3680, "test": 3669}, ("oxford_iiit_pet", "pet")
    ),
    VtabTask("sun397", "natural", 397, _OF_VALIDATION, "test", _three(76_128, 10_875, 21_750)),
    VtabTask("svhn", "natural", 10, "train[65931:66131]", "test", {"train": 73_257, "test": 26_032}, ("svhn_cropped",)),
    VtabTask("patch_camelyon", "specialized", 2, _OF_VALIDATION, "test", _three(262_144, 32_768, 32_768), ("pcam",)),
    VtabTask("eurosat", "specialized", 10, "train[16200:16400]", "train[21600:]", {"train": 27_000}, ("eurosat_rgb",)),
    VtabTask("resisc45", "specialized", 45, "train[18900:19100]", "train[25200:]", {"train": 31_500}, ("resisc",)),
    VtabTask(
        "diabetic_retinopathy",
        "specialized",
        5,
        _OF_VALIDATION,
        "test",
        _three(35_126, 10_906, 42_670),
        ("retinopathy", "diabetic_retinopathy_detection", "diabetic_retinopathy_btgraham_300"),
    ),
    VtabTask(
        "clevr_count", "structured", 8, "train[63000:63200]", "validation", _CLEVR, ("clevr_count_all", "clevr_counts")
    ),
    VtabTask(
        "clevr_distance",
        "structured",
        6,
        "train[63000:63200]",
        "validation",
        _CLEVR,
        ("clevr_closest_object_distance", "clevr_dist"),
    ),
    VtabTask("dmlab", "structured", 6, _OF_VALIDATION, "test", _three(65_550, 22_628, 22_735)),
    VtabTask(
        "dsprites_location",
        "structured",
        16,
        "train[589824:590024]",
        "train[663552:]",
        _DSPRITES,
        ("dsprites_x_position", "dsprites_label_x_position", "dsprites_loc"),
    ),
    VtabTask(
        "dsprites_orientation",
        "structured",
        16,
        "train[589824:590024]",
        "train[663552:]",
        _DSPRITES,
        ("dsprites_label_orientation", "dsprites_ori"),
    ),
    VtabTask(
        "kitti",
        "structured",
        4,
        _OF_VALIDATION,
        "test",
        _three(6347, 423, 711),
        ("kitti_closest_vehicle_distance", "kitti_distance"),
    ),
    VtabTask(
        "smallnorb_azimuth",
        "structured",
        18,
        "test[:200]",
        "test[50%:]",
        _NORB,
        ("smallnorb_label_azimuth", "norb_azimuth", "snorb_azim"),
    ),
    VtabTask(
        "smallnorb_elevation",
        "structured",
        9,
        "test[:200]",
        "test[50%:]",
        _NORB,
        ("smallnorb_label_elevation", "norb_elevation", "snorb_elev"),
    ),
)

SLICED = ("train800", "val200", "test")
"""Splits of a set that holds the slices themselves."""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


_BY_NAME = {_plain(name): task for task in TASKS for name in (task.name, *task.names)}


def vtab_task(name: str) -> VtabTask | None:
    """The task that a name means, in any spelling and with any of the prefixes ``vtab1k-``, ``vtab-`` and ``wds_``.

    ``vtab1k-caltech101``, ``wds_vtab-dsprites_label_orientation_test``, ``vtab/dtd`` and ``dtd`` are all names.
    """
    plain = _plain(name.rstrip("/")).removeprefix("wds_").removesuffix("_test")
    for prefix in ("vtab1k_", "vtab_1k_", "vtab_"):
        plain = plain.removeprefix(prefix)
    return _BY_NAME.get(plain)


def is_sliced(evalset: EvalSet) -> bool:
    """Whether a set holds the slices themselves."""
    return set(SLICED) <= set(evalset.split_names())


def parse_slices(text: str, sizes: Mapping[str, int]) -> list[Slice]:
    """``train[:800]+test[50%:]`` over splits of these sizes, as TFDS reads it: a share is rounded to the nearest image.

    Raises:
        DataError: it is written otherwise, a split has no size, a slice ends behind its split or is empty.
    """
    found = []
    for part in text.split("+"):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise DataError(f"{part!r} in {text!r} is no slice of a split; write it as train[:800] or test[50%:]")
        split = match["split"]
        if split not in sizes:
            raise DataError(f"{text!r} wants the split {split!r}; there are {', '.join(sorted(sizes)) or 'none'}")
        size = sizes[split]
        start, stop = _place(match["start"], 0, size), _place(match["stop"], size, size)
        if stop > size or start >= stop:
            raise DataError(f"{part.strip()!r} is not a part of a split of {size} images")
        found.append(Slice(split, start, stop))
    return found


def _place(text: str | None, default: int, size: int) -> int:
    if text is None:
        return default
    return round(int(text[:-1]) * size / 100) if text.endswith("%") else int(text)


def rows_of(slices: Sequence[Slice], split: str) -> np.ndarray:
    """Rows of one split that slices cover, ``(m,) int64``, ascending, each once."""
    ranges = [np.arange(s.start, s.stop) for s in slices if s.split == split]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *ranges]))


def vtab_means(records: Sequence[Mapping[str, Any]], metric: str = "vtab1k_acc1") -> dict[str, Any]:
    """Means of one model over the tasks: of each group, of all 19, and of the three group means.

    A mean is None unless every task that it is over is there: VTAB's score of 18 tasks does not exist. Records of other
    suites are passed over.

    Args:
        records: entries of ``results`` of one evaluation.
        metric: which of their metrics.

    Returns:
        ``natural``, ``specialized``, ``structured``, ``mean`` (over 19 tasks: VTAB's score) and ``mean_of_groups``,
        fractions 0-1 or None; ``tasks``: task -> value; ``sets``: task -> name of its set; ``missing``: names of tasks
        without a value; ``made_up``: names of those whose splits did not have the sizes of VTAB-1k (`strict: false`),
        which count in no mean.

    Raises:
        DataError: a task is there twice, or records of two suites or protocols are mixed.
    """
    ours = [record for record in records if record.get("type") == "vtab"]
    kinds = {(record.get("suite"), record["facts"].get("protocol")) for record in ours}
    if len(kinds) > 1:
        shown = " and ".join(f"{suite} ({protocol})" for suite, protocol in sorted(kinds, key=str))
        raise DataError(f"means over VTAB-1k cannot mix suites or protocols: {shown}; give the records of one")
    values: dict[str, float] = {}
    sets: dict[str, str] = {}
    made_up = []
    for record in ours:
        name = record["facts"]["task"]
        if name in values or name in made_up:
            raise DataError(f"VTAB-1k's {name} is there twice; one set per task enters its means")
        if not record["facts"]["exact"]:
            made_up.append(name)
        elif record["metrics"].get(metric) is not None:
            values[name], sets[name] = record["metrics"][metric], record["dataset"]
    means: dict[str, Any] = {group: _mean(values, [t.name for t in TASKS if t.group == group]) for group in GROUPS}
    whole = all(means[group] is not None for group in GROUPS)
    means["mean"] = _mean(values, [task.name for task in TASKS])
    means["mean_of_groups"] = sum(means[group] for group in GROUPS) / len(GROUPS) if whole else None
    means["tasks"] = {task.name: values[task.name] for task in TASKS if task.name in values}
    means["sets"] = {task.name: sets[task.name] for task in TASKS if task.name in sets}
    means["missing"] = [task.name for task in TASKS if task.name not in values]
    means["made_up"] = sorted(made_up)
    return means


def _mean(values: Mapping[str, float], names: Sequence[str]) -> float | None:
    return sum(values[name] for name in names) / len(names) if all(name in values for name in names) else None
