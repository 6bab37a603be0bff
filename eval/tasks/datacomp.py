"""DataComp's 40 evaluation tasks, as data: sizes, main metrics and the groups that its leaderboard averages.

The table of the benchmark's task list (Gadre et al., "DataComp", NeurIPS 2023, appendix on evaluation), so that a
result can be named, checked and averaged as everybody else's is. 38 tasks have a main metric and enter the average;
the two fairness tasks without one never do. What DataComp calls VTAB are 13 zero-shot tasks, *not* the 19 of VTAB-1k.
`by_name.py` looks sets up in it, `aggregates.py` averages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...shards.evalsets.base import Kind

Group = Literal["ImageNet", "ImageNet dist. shifts", "VTAB", "Retrieval"]
Tag = Literal["vtab_natural", "vtab_specialized", "vtab_structured", "retrieval", "wilds", "fairness"]


@dataclass(frozen=True)
class DataCompTask:
    """One task.

    Attributes:
        key: its key in DataComp's task list.
        name: its display name, by which the aggregator finds it.
        size: samples (instances for WinoGAViL) of the scored split.
        classes: number of classes; None where there are none, or where objectives differ (FairFace, UTKFace).
        metric: its main metric; None = it has none and is left out of every average.
        chance: of the main metric, as DataComp publishes it; None where it does not.
        group: the leaderboard group that it counts in, beside the average of all; None = only in that.
        tag: what kind of task the list says it is.
        kind: kind of its set.
    """

    key: str
    name: str
    size: int
    classes: int | None
    metric: str | None = "acc1"
    chance: float | None = None
    group: Group | None = None
    tag: Tag | None = None
    kind: Kind = "classification"

    @property
    def folder(self) -> str:
        """Its set's folder name without ``wds_`` and ``_test``."""
        return self.key.replace("/", "-")


_RECALL = "mean_per_class_recall"
_SHIFT: Group = "ImageNet dist. shifts"
_CLEVR_DISTANCE = "vtab/clevr_closest_object_distance"
_FLICKR = "retrieval/flickr_1k_test_image_text_retrieval"
_COCO = "retrieval/mscoco_2014_5k_test_image_text_retrieval"

TASKS: tuple[DataCompTask, ...] = (
    DataCompTask("vtab/caltech101", "Caltech-101", 6085, 102, _RECALL, 0.009804, "VTAB", "vtab_natural"),
    DataCompTask("cifar10", "CIFAR-10", 10000, 10, "acc1", 0.1),
    DataCompTask("vtab/cifar100", "CIFAR-100", 10000, 100, "acc1", 0.01, "VTAB", "vtab_natural"),
    DataCompTask("vtab/clevr_count_all", "CLEVR Counts", 15000, 8, "acc1", 0.125061, "VTAB", "vtab_structured"),
    DataCompTask(_CLEVR_DISTANCE, "CLEVR Distance", 15000, 6, "acc1", 0.19052, "VTAB", "vtab_structured"),
    DataCompTask("country211", "Country211", 21100, 211, "acc1", 0.004739),
    DataCompTask("vtab/dtd", "Describable Textures", 1880, 47, "acc1", 0.021277, "VTAB", "vtab_natural"),
    DataCompTask("vtab/eurosat", "EuroSAT", 5400, 10, "acc1", 0.101483, "VTAB", "vtab_specialized"),
    DataCompTask("fgvc_aircraft", "FGVC Aircraft", 3333, 100, _RECALL, 0.01),
    DataCompTask("food101", "Food-101", 25250, 101, "acc1", 0.009901),
    DataCompTask("gtsrb", "GTSRB", 12630, 43, "acc1", 0.037604),
    DataCompTask("imagenet1k", "ImageNet 1k", 50000, 1000, "acc1", 0.001, "ImageNet"),
    DataCompTask("imagenet_sketch", "ImageNet Sketch", 50889, 1000, "acc1", 0.001, _SHIFT),
    DataCompTask("imagenetv2", "ImageNet v2", 10000, 1000, "acc1", 0.001, _SHIFT),
    DataCompTask("imagenet-a", "ImageNet-A", 7500, 200, "acc1", 0.008056, _SHIFT),
    DataCompTask("imagenet-o", "ImageNet-O", 2000, 200, "acc1", 0.006047, _SHIFT),
    DataCompTask("imagenet-r", "ImageNet-R", 30000, 200, "acc1", 0.006163, _SHIFT),
    DataCompTask(
        "vtab/kitti_closest_vehicle_distance", "KITTI Vehicle Distance", 711, 4, "acc1", 0.295289, "VTAB",
        "vtab_structured",
    ),
    DataCompTask("mnist", "MNIST", 10000, 10, "acc1", 0.10035),
    DataCompTask("objectnet", "ObjectNet", 18574, 113, "acc1", 0.009481, _SHIFT),
    DataCompTask("vtab/flowers", "Oxford Flowers-102", 6149, 102, _RECALL, 0.009804, "VTAB", "vtab_natural"),
    DataCompTask("vtab/pets", "Oxford-IIIT Pet", 3669, 37, _RECALL, 0.027027, "VTAB", "vtab_natural"),
    DataCompTask("voc2007", "Pascal VOC 2007", 14976, 20, "acc1", 0.154038),
    DataCompTask("vtab/pcam", "PatchCamelyon", 32768, 2, "acc1", 0.5, "VTAB", "vtab_specialized"),
    DataCompTask("renderedsst2", "Rendered SST2", 1821, 2, "acc1", 0.500001),
    DataCompTask("vtab/resisc45", "RESISC45", 6300, 45, "acc1", 0.022342, "VTAB", "vtab_specialized"),
    DataCompTask("cars", "Stanford Cars", 8041, 196, "acc1", 0.00516),
    DataCompTask("stl10", "STL-10", 8000, 10, "acc1", 0.1),
    DataCompTask("sun397", "SUN397", 108754, 397, "acc1", 0.004645, "VTAB", "vtab_natural"),
    DataCompTask("vtab/svhn", "SVHN", 26032, 10, "acc1", 0.117897, "VTAB", "vtab_natural"),
    DataCompTask(_FLICKR, "Flickr", 1000, None, "mean_recall@1", None, "Retrieval", "retrieval", "retrieval"),
    DataCompTask(_COCO, "MSCOCO", 5000, None, "mean_recall@1", None, "Retrieval", "retrieval", "retrieval"),
    DataCompTask(
        "misc/winogavil", "WinoGAViL", 3563, None, "jaccard_score_10-12", 0.205, "Retrieval", "retrieval",
        "association",
    ),
    DataCompTask("wilds/iwildcam", "iWildCam", 42791, 182, "F1-macro_all", 0.143056, None, "wilds"),
    DataCompTask("wilds/camelyon17", "Camelyon17", 85054, 2, "acc1", 0.5, None, "wilds"),
    DataCompTask("wilds/fmow", "FMoW", 22108, 62, "acc_worst_region", 0.027193, None, "wilds"),
    DataCompTask("fairness/dollar_street", "Dollar Street", 3503, 58, "acc_top5_wg", None, None, "fairness"),
    DataCompTask("fairness/geode", "GeoDE", 12488, 40, "acc_wg", None, None, "fairness"),
    DataCompTask("fairness/fairface", "FairFace", 10954, None, None, None, None, "fairness"),
    DataCompTask("fairness/utkface", "UTKFace", 23703, None, None, None, None, "fairness"),
)  # fmt: skip
"""All tasks in the order of DataComp's list."""
