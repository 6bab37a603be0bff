"""A made-up comparison with structure: 20 runs on DataComp's 38 tasks and more, with hostile names and captions.

An arm has a true quality, a task a difficulty; seeds and test images add chance. Nothing is drawn from a global
generator, so the page is the same every time.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from curate.eval.comparison.statistics import wilson
from curate.eval.report.dashboard.data import (
    Aggregate,
    Arm,
    Confusion,
    Curve,
    Dashboard,
    Difference,
    Fact,
    Groups,
    GroupScore,
    Measure,
    PerClass,
    Robustness,
    Score,
    Span,
    Step,
)
from curate.eval.report.dashboard.example_data import Guess, Hit, Mistake, Retrieved
from curate.eval.report.gallery_data import Picture

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2>"
REORDERING = "safe\u202egnp.exe \u200b\x00 <b>bold</b> &amp; ${x} %{y}"
FORMULA = "=HYPERLINK(0)"

SHIFTS, VTAB13, VTAB1K, RETRIEVAL = "ImageNet shifts", "VTAB-13 (DataComp's)", "VTAB-1k", "Retrieval"
TASKS: list[tuple[str, str, int, int]] = [
    ("ImageNet 1k", "ImageNet", 50000, 1000),
    *((f"ImageNet {n}", SHIFTS, size, c) for n, size, c in (("Sketch", 50889, 1000), ("v2", 10000, 1000))),
    *((n, SHIFTS, size, 200) for n, size in (("ImageNet-A", 7500), ("ImageNet-O", 2000), ("ImageNet-R", 30000))),
    ("ObjectNet", SHIFTS, 18574, 113),
    *(
        (n, VTAB13, size, c)
        for n, size, c in (
            ("Caltech-101", 6085, 102),
            ("CIFAR-100", 10000, 100),
            ("CLEVR Counts", 15000, 8),
            ("CLEVR Distance", 15000, 6),
            ("Describable Textures", 1880, 47),
            ("EuroSAT", 5400, 10),
            ("KITTI Vehicle Distance", 711, 4),
            ("Oxford Flowers-102", 6149, 102),
            ("Oxford-IIIT Pet", 3669, 37),
            ("PatchCamelyon", 32768, 2),
            ("RESISC45", 6300, 45),
            ("SUN397", 108754, 397),
            ("SVHN", 26032, 10),
        )
    ),
    *((n, RETRIEVAL, size, 0) for n, size in (("Flickr", 1000), ("MSCOCO", 5000), ("WinoGAViL", 3563))),
    *(
        (n, "Capability", size, c)
        for n, size, c in (
            ("CIFAR-10", 10000, 10),
            ("Country211", 21100, 211),
            ("FGVC Aircraft", 3333, 100),
            ("Food-101", 25250, 101),
            ("GTSRB", 12630, 43),
            ("MNIST", 10000, 10),
            ("Pascal VOC 2007", 14976, 20),
            ("Rendered SST2", 1821, 2),
            ("Stanford Cars", 8041, 196),
            ("STL-10", 8000, 10),
            ("iWildCam", 42791, 182),
            ("Camelyon17", 85054, 2),
            ("FMoW", 22108, 62),
            ("Dollar Street", 3503, 58),
        )
    ),
    ("GeoDE", "Groups", 12488, 40),
    ("dSprites orientation", VTAB1K, 73728, 16),
]
PRESENT = 38  # of TASKS that enter DataComp's average
CLASSES = ["cat", "dog", "ship", "truck", HOSTILE, REORDERING, FORMULA, "deer", "horse", "frog"]


def make_dashboard(runs: int = 20, seeds: int = 3) -> Dashboard:
    """The sample; `runs` = 1 and `seeds` = 1 make a page of one model."""
    rng = np.random.Generator(np.random.Philox(key=7))
    measures = _measures()
    arms = [_arm(i, seeds, measures, rng) for i in range(runs)]
    names = [a.name for a in arms]
    return Dashboard(
        title="small pool, twenty ways" if runs > 1 else "one run",
        summary=f"Subsets of one pool ({runs}), seeds of each ({seeds}), 12.8 M samples seen",
        measures=measures,
        arms=arms,
        control=names[0],
        notes=[
            "The numbers are made up; only their structure is like that of real ones.",
            "Differences are many: of 800 comparisons at 5 %, about 40 exclude 0 where nothing differs.",
        ],
        facts=[
            Fact("subset", "subset size"),
            Fact("seen", "samples seen"),
            Fact("cost", "cost", "GPU hours"),
            Fact("parameters", "parameters"),
        ],
        differences=_differences(arms, measures) if runs > 1 else (),
        aggregates=_aggregates(measures),
        per_class=[_per_class("cifar-10/zero_shot/acc1", names, rng)],
        confusions=[_confusion("cifar-10/zero_shot/acc1", name, rng) for name in names[:3]],
        groups=[_groups("geode/zero_shot/acc1", names, rng)],
        robustness=[
            Robustness(
                measures[0].name, m.name, *_line(arms, measures[0].name, m.name), fitted_on="Fitted on all arms."
            )
            for m in measures
            if SHIFTS in m.groups
        ],
        curves=_curves(names, seeds, rng),
        mistakes=_mistakes("cifar-10/zero_shot/acc1", names, rng),
        retrieved=_retrieved("flickr/retrieval/mean_recall@1", names, rng),
    )


def _line(arms: list[Arm], x: str, y: str) -> tuple[float, float]:
    """Slope and intercept between logits of the arms that have both."""
    seen = [(a.scores[x].seeds[0], a.scores[y].seeds[0]) for a in arms if x in a.scores and y in a.scores]
    logits = np.log(np.clip(np.array(seen, float), 0.001, 0.999) / (1 - np.clip(np.array(seen, float), 0.001, 0.999)))
    slope, intercept = np.polyfit(*logits.T, 1) if len(seen) > 1 else (1.0, 0.0)
    return round(float(slope), 6), round(float(intercept), 6)


def _measures() -> list[Measure]:
    found = []
    for i, (label, group, n, classes) in enumerate(TASKS):
        slug = label.lower().replace(" ", "_")
        retrieval = group == RETRIEVAL
        suite, metric = ("retrieval", "mean_recall@1") if retrieval else ("zero_shot", "acc1")
        if group == VTAB1K:
            suite, metric = "linear_probe", "lp_acc1"
        found.append(
            Measure(
                name=f"{slug}/{suite}/{metric}",
                label=label,
                dataset=slug,
                suite=suite,
                metric=metric,
                groups=[group, "DataComp 38"] if i < PRESENT else [group],
                n=n,
                chance=1 / classes if classes else None,
                protocol="zero-shot, 80 prompts, mean of normalised" if not retrieval else "5 captions, any hit",
                version="2",
                split="test",
                text_hash=f"{i:02d}c0ffee" * 4,
                digest=f"{i:02d}5eed00" * 8,
            )
        )
    extra = Measure("imagenet_1k/zero_shot/acc5", "ImageNet 1k, top 5", "imagenet_1k", "zero_shot", "acc5")
    extra.groups, extra.main, extra.n, extra.chance = ["ImageNet"], False, 50000, 0.005
    loss = Measure("imagenet_1k/zero_shot/loss", "ImageNet 1k, loss", "imagenet_1k", "zero_shot", "loss")
    loss.groups, loss.main, loss.unit, loss.higher_is_better = ["ImageNet"], False, "nats", False
    return [*found, extra, loss]


NAMES = ("no filter", "random 30 %", "basic", "text-based", "CLIP score 30 %", "image-based", "image ∩ CLIP", "deduped")


def _arm(i: int, seeds: int, measures: list[Measure], rng: np.random.Generator) -> Arm:
    quality = 0.15 * math.sin(2.4 * i) + 0.05 * (i % 4) + (0.5 if i % 7 == 6 else 0)
    name = NAMES[i] if i < len(NAMES) else (REORDERING, HOSTILE, FORMULA)[i - 8] if i < 11 else f"mix {i}"
    scores: dict[str, Score] = {}
    for k, measure in enumerate(measures):
        if i == 3 and k in (4, 9):
            continue  # an arm that was not measured everywhere
        base = quality - 1.2 + 1.1 * math.sin(1.7 * k) + 0.08 * math.sin(i * k)
        values = [1 / (1 + math.exp(-(base + x))) for x in rng.normal(0, 0.05, seeds)]
        values = [measure.chance or 0.0 if k % 13 == 9 else v for v in values] if i % 3 == 0 else values
        if measure.unit != "percent":
            scores[measure.name] = Score([4 - 3 * v for v in values])
            continue
        n = measure.n or 1000
        intervals = [wilson(round(v * n), n) for v in values]
        spans = [Span(*w, f"Wilson, {n:,} test images") if w else None for w in intervals]
        scores[measure.name] = Score([round(v, 6) for v in values], spans=spans)
    pool, kept = 12_800_000, int(12_800_000 * (1 if i == 0 else 0.1 + 0.8 * ((i * 7) % 10) / 10))
    steps = [Step("language", pool, (pool + kept) // 2), Step("clip_score >= 0.28", (pool + kept) // 2, kept)]
    return Arm(
        name=name,
        seeds=[str(s) for s in range(seeds)],
        scores=scores,
        run=f"run-{i:02d}",
        description="the whole pool" if i == 0 else "",
        facts={"subset": kept, "seen": 12_800_000 * (1 + i % 3), "cost": 3.5 + i, "parameters": 151_277_313},
        pool=pool,
        steps=[Step("no filter", pool, pool)] if i == 0 else steps,
        report=f"../run-{i:02d}/report/index.html" if i % 2 == 0 else "",
    )


def _differences(arms: list[Arm], measures: list[Measure]) -> list[Difference]:
    """Arms against the first, on ImageNet, as a paired bootstrap would tell them."""
    name = measures[0].name
    control = float(np.mean([v for v in arms[0].scores[name].seeds if v is not None]))
    found = []
    for arm in arms[1:]:
        d = float(np.mean([v for v in arm.scores[name].seeds if v is not None])) - control
        found.append(
            Difference(arm.name, arms[0].name, name, d, d - 0.012, d + 0.012, 0.01, 0.12, "paired bootstrap, images")
        )
    return found


def _aggregates(measures: list[Measure]) -> list[Aggregate]:
    members = [m.name for m in measures if "DataComp 38" in m.groups]
    shifts = [m.name for m in measures if SHIFTS in m.groups]
    return [
        Aggregate("DataComp average of 38", members, 38, "plain mean of main metrics"),
        Aggregate("ImageNet dist. shifts", shifts, 6),
        Aggregate("VTAB-1k mean of 19", [m.name for m in measures if VTAB1K in m.groups], 19),
    ]


def _per_class(measure: str, arms: list[str], rng: np.random.Generator) -> PerClass:
    classes = CLASSES + [f"class {i}" for i in range(60)]
    values = {a: [round(float(v), 6) for v in rng.beta(5, 3, len(classes))] for a in arms}
    return PerClass(measure, classes, dict(values), [100 + i for i in range(len(classes))])


def _confusion(measure: str, arm: str, rng: np.random.Generator) -> Confusion:
    counts = rng.poisson(3, (len(CLASSES), len(CLASSES))) + np.diag(np.full(len(CLASSES), 70))
    off = [(int(counts[i, j]), i, j) for i in range(len(CLASSES)) for j in range(len(CLASSES)) if i != j]
    pairs = [(CLASSES[i], CLASSES[j], n) for n, i, j in sorted(off, key=lambda x: -x[0])[:20]]
    return Confusion(measure, arm, pairs, CLASSES, [[int(n) for n in row] for row in counts])


def _groups(measure: str, arms: list[str], rng: np.random.Generator) -> Groups:
    names = ["Africa", "Americas", "East Asia", "Europe", "Southeast Asia", "West Asia"]
    n = [240, 2100, 1890, 5200, 900, 2158]
    table = {}
    for arm in arms:
        right = [int(k) for k in rng.binomial(n, [0.55, 0.72, 0.64, 0.78, 0.6, 0.66])]
        table[arm] = [GroupScore(k / m, *(wilson(k, m) or (None, None))) for k, m in zip(right, n, strict=True)]
    return Groups(measure, "region", names, n, table)


def _curves(arms: list[str], seeds: int, rng: np.random.Generator) -> list[Curve]:
    seen = [12_800_000 * (k + 1) / 10 for k in range(10)]
    found = []
    for i, arm in enumerate(arms):
        for s in range(seeds):
            top = 0.2 + 0.02 * (i % 5) + float(rng.normal(0, 0.004))
            found.append(
                Curve("Learning", arm, "ImageNet 1k", seen, [top * (1 - 0.7**k) for k in range(1, 11)], str(s))
            )
        loss: list[float | None] = [5 * float(k) ** -0.3 for k in range(1, 11)]
        loss[3] = None
        found.append(Curve("Scaling", arm, "loss", seen, loss, unit="nats"))
    return found


def _picture(rng: np.random.Generator, size: int = 32) -> Picture:
    ramp = np.linspace(0, 1, size)
    colours = rng.integers(0, 255, (2, 3))
    image = (ramp[:, None, None] * colours[0] + (1 - ramp)[None, :, None] * colours[1]) / 2
    held = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(held, "PNG")
    return Picture(held.getvalue(), "image/png", size, size)


def _mistakes(measure: str, arms: list[str], rng: np.random.Generator) -> list[Mistake]:
    found = []
    for k in range(60):
        true = CLASSES[k % len(CLASSES)]
        guesses = {}
        for a in arms[:6]:
            right = bool(rng.random() < 0.5)
            guesses[a] = Guess(true if right else CLASSES[(k + 3) % len(CLASSES)], right)
        found.append(Mistake(measure, f"s{k:07d}", true, guesses, _picture(rng), REORDERING if k == 1 else ""))
    return found


def _retrieved(measure: str, arms: list[str], rng: np.random.Generator) -> list[Retrieved]:
    found = []
    for k in range(12):
        by_text = k % 2 == 0
        text = HOSTILE if k == 0 else REORDERING if k == 2 else f"a photo of a {CLASSES[k % 4]} on the {k}th shelf"
        hits: dict[str, list[Hit]] = {}
        ranks: dict[str, int] = {}
        for a in arms[:4]:
            right = int(rng.integers(0, 7))
            ranks[a] = right + 1
            hits[a] = [
                Hit(r == right, "" if by_text else f"caption {r} of {text}", _picture(rng) if by_text else None, 0.31)
                for r in range(5)
            ]
        shown = None if by_text else _picture(rng)
        found.append(Retrieved(measure, f"q{k:03d}", hits, text if by_text else "", shown, ranks))
    return found
