"""What a set asks of a model: the mapping from sets to capabilities, so that a mean says what it is a mean of.

One mean over everything hides that a model reads well and cannot count; UniBench (Al-Tahan et al., NeurIPS 2024) groups
benchmarks by capability for that reason. The names here are of that kind; the assignment is ours, each set in one
group, by what its labels ask for. A set that is not listed belongs to none, and no mean is over it.
"""

from __future__ import annotations

from collections.abc import Mapping

CAPABILITIES: dict[str, tuple[str, ...]] = {
    "object recognition": (
        "caltech101", "cifar10", "cifar100", "food101", "imagenet1k", "stl10", "voc2007", "voc2007_multilabel",
        "mscoco_multilabel", "geode", "dollar_street",
    ),
    "fine-grained categories": ("cars", "fgvc_aircraft", "flowers", "pets", "iwildcam", "cub", "gtsrb"),
    "distribution shifts": (
        "imagenet-a", "imagenet-o", "imagenet-r", "imagenet_sketch", "imagenetv2", "objectnet",
    ),
    "scenes and places": ("sun397", "country211"),
    "textures": ("dtd",),
    "reading": ("mnist", "svhn", "renderedsst2", "digits"),
    "counting": ("clevr_count_all", "countbench"),
    "depth and distance": (
        "clevr_closest_object_distance", "kitti_closest_vehicle_distance", "dmlab",
    ),
    "position and pose": (
        "dsprites_label_x_position", "dsprites_label_orientation", "smallnorb_label_azimuth",
        "smallnorb_label_elevation",
    ),
    "satellite images": ("eurosat", "resisc45", "fmow"),
    "medical images": ("pcam", "camelyon17", "diabetic_retinopathy"),
    "facial expressions": ("fer2013",),
    "retrieval": (
        "flickr_1k_test_image_text_retrieval", "mscoco_2014_5k_test_image_text_retrieval", "flickr8k", "flickr30k",
        "mscoco_captions",
    ),
    "association": ("winogavil",),
    "composition": ("winoground", "sugar_crepe", "sugarcrepe"),
}  # fmt: skip
"""Capability -> names of sets, without ``wds_``, ``_test`` and the family before a dash or slash (``vtab-``)."""

_WITH_PARTS = ("sugar_crepe", "sugarcrepe")  # whose parts are sets of their own
FAMILIES = ("vtab", "wilds", "fairness", "retrieval", "misc")


def short_name(dataset: str) -> str:
    """A set's name without the family that DataComp and CLIP_benchmark put before it."""
    name = dataset.removeprefix("wds_").removesuffix("_test")
    for family in FAMILIES:
        for mark in "/-":
            name = name.removeprefix(f"{family}{mark}")
    return name


def members(
    datasets: Mapping[str, object] | list[str], capabilities: Mapping[str, tuple[str, ...]] = CAPABILITIES
) -> dict[str, list[str]]:
    """Capability -> those of `datasets` that ask for it, in their order; capabilities without any are left out.

    Variants of a set count with it: ``sugar_crepe/add_att`` and ``sugar_crepe-add_att`` with ``sugar_crepe``.
    """
    found = {}
    for capability, names in capabilities.items():
        mine = [d for d in datasets if _belongs(short_name(d), names) or d in names]
        if mine:
            found[capability] = mine
    return found


def _belongs(name: str, names: tuple[str, ...]) -> bool:
    return name in names or any(name.startswith((f"{one}/", f"{one}-")) for one in names if one in _WITH_PARTS)
