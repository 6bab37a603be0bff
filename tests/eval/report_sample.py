"""A report as a real run would fill it: simulated decisions over real digit scans, with hostile text sewn in.

Not a test; the report's tests load it.
"""

from __future__ import annotations

import hashlib
import io
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curate.eval.report.data import (
    Arm,
    Card,
    Cluster,
    ClusterMap,
    Confusion,
    Contrast,
    Curve,
    Estimate,
    Fault,
    FilterTruth,
    Funnel,
    FunnelStep,
    Gallery,
    Header,
    Headline,
    Histogram,
    Leaderboard,
    Line,
    Metric,
    PerClass,
    Picture,
    Pool,
    Provenance,
    Report,
    Split,
    Stages,
    StageTime,
    Training,
)

HOSTILE = (
    "<script>window.pwned=1</script>",
    '"><img src=x onerror=window.pwned=1>',
    "</script><script>window.pwned=1</script>",
    "<svg onload=window.pwned=1>",
    "{{7*7}} {% raw %} ${7*7} #{7*7} %{x}",
    "the number \u202eeerht\u202c on paper\u200b\u200d\ufeff",
    "line one\nline two\r\nand\ttab\x00\x07\x1b[31m",
    "<b>bold</b> &amp; <a href='javascript:window.pwned=1'>link</a>",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 sieben \U0001f600",
    "شرح الرقم سبعة بخط اليد",
    "a\u0335\u0336\u0337" * 40,
    "]]><!-- --> <![CDATA[ \u2028 \u2029 \ud800 end",
    "W" * 10_000,
    "long words in a very long caption " * 300,
    "",
)
URLS = (
    "javascript:window.pwned=1",
    "http://digits.test/a.png?x=<script>window.pwned=1</script>",
    "data:text/html,<script>window.pwned=1</script>",
    'http://digits.test/" onclick="window.pwned=1',
    "http://digits.test/gallery/" + "x" * 3000,
)
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SUBSETS = ("everything", "random", "clip_top", "curated")
ACCURACY = {"everything": 0.78, "random": 0.771, "clip_top": 0.885, "curated": 0.914}
SEEDS = 5
T_975 = 2.776  # Student's t, 4 degrees of freedom


@cache
def _scans() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target


def picture(i: int, side: int = 32) -> Picture:
    """The i-th scan as a PNG."""
    scan = Image.fromarray(255 - (_scans()[0][i] * 15.9).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    file = io.BytesIO()
    scan.save(file, "PNG")
    return Picture(file.getvalue(), "image/png", side, side)


def uid(i: int) -> str:
    return hashlib.blake2b(str(i).encode(), digest_size=16).hexdigest()


def estimate(values: Any) -> Estimate:
    """Mean, and the t interval over seeds."""
    array = np.asarray(values, float)
    if len(array) < 2:
        return Estimate(float(array.mean()), seeds=array.tolist())
    half = T_975 * array.std(ddof=1) / np.sqrt(len(array))
    mean = float(array.mean())
    return Estimate(mean, mean - half, mean + half, array.tolist())


class Simulation:
    """4,000 rows with faults, and what four subsets make of them."""

    def __init__(self) -> None:
        rng = np.random.Generator(np.random.Philox(key=7))
        self.rng = rng
        n = self.n = 4000
        self.scan = rng.integers(0, 1797, n)
        self.failed = rng.random(n) < 0.08
        codes = ["http_404", "refused", "truncated", "not_image", "opted_out", "incomplete_read", "too_many_pixels"]
        self.code = rng.choice(codes, n, p=[0.34, 0.2, 0.16, 0.13, 0.1, 0.05, 0.02])
        self.foreign = rng.random(n) < 0.08
        self.boilerplate = ~self.foreign & (rng.random(n) < 0.05)
        self.wrong = ~self.foreign & ~self.boilerplate & (rng.random(n) < 0.6)
        self.copy = rng.random(n) < 0.06
        self.near = ~self.copy & (rng.random(n) < 0.08)
        self.odd = rng.random(n) < 0.02
        bad = self.wrong | self.boilerplate
        self.score = np.where(bad, rng.normal(0.12, 0.12, n), rng.normal(0.42, 0.11, n))
        self.language = np.where(self.foreign, rng.normal(0.25, 0.12, n), rng.beta(12, 1.6, n)).clip(0, 1)
        self.cluster = rng.integers(0, 10, n)
        self.good = ~(self.foreign | bad | self.copy | self.near | self.odd)

    def faults(self) -> dict[str, np.ndarray]:
        return {
            "wrong_caption": self.wrong,
            "boilerplate": self.boilerplate,
            "foreign": self.foreign,
            "exact_copy": self.copy,
            "near_copy": self.near,
            "odd_shape": self.odd,
        }

    def filters(self, subset: str) -> list[tuple[str, str, Any, tuple[str, ...]]]:
        """Label, options, alive -> (keep, value, reason), and the faults it is meant to catch."""
        rng = self.rng

        def basic(alive: np.ndarray) -> Any:
            foreign, odd = self.foreign & (rng.random(self.n) < 0.97), self.odd
            few = self.boilerplate & (rng.random(self.n) < 0.45)
            reason = np.where(foreign, "not_english", np.where(odd, "too_small", "too_few_words"))
            return ~(foreign | odd | few), self.language, reason

        def top(fraction: float) -> Any:
            def decide(alive: np.ndarray) -> Any:
                cut = np.sort(self.score[alive])[-int(fraction * alive.sum())]
                return self.score >= cut, self.score, np.full(self.n, "below_threshold")

            return decide

        def drop(mask: np.ndarray, share: float, reason: str) -> Any:
            hit = mask & (rng.random(self.n) < share)
            return lambda alive: (~hit, np.where(hit, 0.97, 0.4), np.full(self.n, reason))

        anyone = np.ones(self.n, bool)
        return {
            "everything": [],
            "random": [("random", "as many as curated", drop(anyone, 0.77, "not_drawn"), ())],
            "clip_top": [("top_fraction", "by dfn_score, keep 0.3", top(0.3), ("wrong_caption", "boilerplate"))],
            "curated": [
                ("basic", "languages en, min_words 3, min_side 24", basic, ("foreign", "boilerplate", "odd_shape")),
                ("exact_dedup", "on image", drop(self.copy, 0.93, "duplicate"), ("exact_copy",)),
                ("semantic_dedup", "dfn, epsilon 0.005", drop(self.near, 0.8, "near_duplicate"), ("near_copy",)),
                ("top_fraction", "by dfn_score, keep 0.4", top(0.4), ("wrong_caption", "boilerplate")),
                ("concept_clusters", "dfn, 10 clusters, keep 0.9", drop(anyone, 0.1, "cluster_quota"), ()),
            ],
        }[subset]  # fmt: skip


def make_report() -> Report:
    """The whole page; the same every time."""
    report = base_report()
    for name in ("scores", "subsets"):
        beside = runpy.run_path(str(Path(__file__).with_name(f"report_sample_{name}.py")))
        report = beside[f"with_{name}"](report)
    return report


def base_report() -> Report:
    """The page without what other files add to it."""
    sim = Simulation()
    faults = sim.faults()
    fetched = ~sim.failed
    codes = dict(zip(*(x.tolist() for x in np.unique(sim.code[sim.failed], return_counts=True)), strict=True))
    funnels, galleries, truth, splits = [], [], [], []
    maps: list[ClusterMap] = []
    for subset in SUBSETS:
        alive = fetched.copy()
        steps = [FunnelStep("fetch", sim.n, int(alive.sum()), codes)]
        for label, detail, decide, targets in sim.filters(subset):
            keep, value, reason = decide(alive)
            dropped, kept = alive & ~keep, alive & keep
            reasons = dict(zip(*(x.tolist() for x in np.unique(reason[dropped], return_counts=True)), strict=True))
            steps.append(FunnelStep(label, int(alive.sum()), int(kept.sum()), reasons, detail))
            galleries.append(_gallery(sim, subset, label, dropped, kept, value, reason))
            meant = np.any([faults[t] for t in targets], axis=0) if targets else ~sim.good
            truth.append(
                FilterTruth(
                    subset,
                    label,
                    int(alive.sum()),
                    int(dropped.sum()),
                    int((alive & meant).sum()),
                    int((dropped & meant).sum()),
                    [Fault(k, int((alive & m).sum()), int((dropped & m).sum())) for k, m in faults.items()],
                    targets,
                    int((alive & sim.good).sum()),
                    int((dropped & sim.good).sum()),
                )
            )
            if label == "top_fraction":
                splits.append((subset, float(sim.score[kept].min()), kept, dropped))
            if label == "concept_clusters":
                maps.append(_map(sim, subset, label, alive, kept))
            alive = kept
        funnels.append(Funnel(subset, sim.n, steps, description=f"{len(steps) - 1} filters"))
    return Report(
        header=Header(
            "quickstart",
            "A small unruly web of handwritten digits, four ways of curating it, one training budget.",
            facts={"model": "ViT-mini-8-32"},
        ),
        notes=[
            "The faults are synthetic and planted at chosen rates; differences between arms hold for this pool only.",
            "Absolute accuracies are of a very small model; chance is 10 %. Claim paired differences, not heights.",
            "Seeds redraw initialisation and sample order, not the pool; intervals leave out the choice of pool.",
        ],
        pool=Pool(
            sim.n,
            int(fetched.sum()),
            codes,
            {"en": 3391, "de": 61, "fr": 52, "es": 48, "ja": 31, "ru": 29, "und": 66},
            9_812_345,
            sources={"forum": sim.n - sim.n // 3, "<b>archive</b>": sim.n // 3},
            copied=42,
            damaged=["pool/00017.tar: truncated at byte 1048576 (<script>alert(1)</script>)"],
        ),
        funnels=funnels,
        histograms=_histograms(sim, fetched, splits),
        galleries=galleries,
        truth=truth,
        clusters=maps,
        meanings={
            "http_404": "the server has no such page",
            "refused": "nothing listens at this address",
            "truncated": "the file ends too early",
            "not_image": "the bytes are no picture, whatever their type says",
            "opted_out": "the host asks not to be used for training",
            "below_threshold": "its score is under the subset's threshold",
        },
        **_models(sim, {f.subset: f.kept for f in funnels}),
        stages=_stages(),
        provenance=Provenance(
            config="name: quickstart\nseed: 0\npool:\n  source: {type: demo}\n  # <script>window.pwned=1</script>\n",
            command="curate run configs/quickstart.yaml",
            fingerprints={f"subset/{s}": uid(i) for i, s in enumerate(SUBSETS)},
            versions={"curate": "0.1.0", "torch": "2.13.0", "open_clip": "3.3.0", "python": "3.11.9"},
            machine={"cpu": "2 cores", "memory": "8 GB", "system": "Linux x86_64"},
            seeds=list(range(SEEDS)),
        ),
    )


def _gallery(
    sim: Simulation, subset: str, label: str, dropped: np.ndarray, kept: np.ndarray, value: Any, reason: Any
) -> Gallery:
    def cards(mask: np.ndarray, is_dropped: bool) -> list[Card]:
        rows = sim.rng.permutation(np.flatnonzero(mask))[:12].tolist()
        return [
            _card(sim, row, j, float(value[row]), str(reason[row]) if is_dropped else "") for j, row in enumerate(rows)
        ]

    hostile = subset == "curated" and label == "basic"
    gone = cards(dropped, True)
    if hostile:
        gone = [
            Card(uid(i), text, URLS[i % len(URLS)], picture(i) if i % 4 else None, 0.5, "not_english", "foreign")
            for i, text in enumerate(HOSTILE)
        ]
    note = "Hostile captions were sewn in here." if hostile else ""
    return Gallery(subset, label, gone, cards(kept, False), int(dropped.sum()), int(kept.sum()), note)


def _card(sim: Simulation, row: int, j: int, value: float, reason: str) -> Card:
    scan = int(sim.scan[row])
    digit = int(_scans()[1][scan])
    said = (digit + 1 + row) % 10 if sim.wrong[row] else digit
    caption = f"a handwritten {WORDS[said]}" if j % 3 else f"here is the digit {said} from an old form"
    note = next((k.replace("_", " ") for k, m in sim.faults().items() if m[row]), "good")
    return Card(uid(row), caption, f"http://digits.test/gallery/{row}.png", picture(scan), value, reason, note)


def _histograms(sim: Simulation, fetched: np.ndarray, splits: list[Any]) -> list[Histogram]:
    right = fetched & ~(sim.wrong | sim.boilerplate)

    def counted(column: np.ndarray, mask: np.ndarray, edges: np.ndarray) -> list[int]:
        return np.histogram(column[mask].clip(edges[0], edges[-1]), edges)[0].tolist()

    def histogram(name: str, column: np.ndarray, edges: np.ndarray, cuts: list[Any], **more: Any) -> Histogram:
        return Histogram(
            name,
            edges.tolist(),
            counted(column, fetched, edges),
            [Split(s, [t], counted(column, k, edges), counted(column, d, edges)) for s, t, k, d in cuts],
            correct=counted(column, right, edges),
            wrong=counted(column, fetched & ~right, edges),
            **more,
        )

    return [
        histogram(
            "dfn_score",
            sim.score,
            np.linspace(-0.3, 0.8, 45),
            splits,
            description="Cosine similarity of image and caption, by a filter network trained on 300 trusted pairs.",
        ),
        histogram("language", sim.language, np.linspace(0, 1, 41), [], missing=12),
    ]


def _map(sim: Simulation, subset: str, label: str, alive: np.ndarray, kept: np.ndarray) -> ClusterMap:
    clusters = []
    for j in range(10):
        mine = sim.cluster == j
        size = int((alive & mine).sum()) if j else int((alive & mine).sum()) // 3
        angle = 2 * np.pi * j / 10
        clusters.append(
            Cluster(
                j,
                float(np.cos(angle) + 0.2 * np.sin(3 * j)),
                float(np.sin(angle) + 0.2 * np.cos(5 * j)),
                size,
                size * (j + 1) // 11,
                0.1 + 0.02 * j,
                0.6 - 0.01 * j,
                f"{j} {WORDS[j]}" if j != 4 else HOSTILE[0],
                [f"a handwritten {WORDS[j]}", HOSTILE[7]],
            )
        )
    return ClusterMap(subset, label, clusters, "Ten k-means clusters of the filter network's image embeddings.")


def _models(sim: Simulation, kept: dict[str, int]) -> dict[str, Any]:
    rng = np.random.Generator(np.random.Philox(key=11))
    metrics = [
        Metric("digits/zero_shot", "digits, zero-shot top-1", 0.1, description="450 held-out scans, 16 prompts."),
        Metric("digits/linear_probe", "digits, linear probe top-1", 0.1, description="450 held-out scans."),
    ]
    runs = {
        arm: {
            metrics[0].name: (level + rng.normal(0, 0.014, SEEDS)).clip(0, 1),
            metrics[1].name: (level * 0.25 + 0.72 + rng.normal(0, 0.004, SEEDS)).clip(0, 1),
        }
        for arm, level in ACCURACY.items()
    }
    arms = [
        Arm(
            arm,
            {name: estimate(values) for name, values in runs[arm].items()},
            {}
            if arm == "everything"
            else {name: estimate(values - runs["everything"][name]) for name, values in runs[arm].items()},
            kept[arm],
            25_600,
            "no filter" if arm == "everything" else "",
        )
        for arm in SUBSETS
    ]

    def contrast(arm: str, control: str, meaning: str) -> Contrast:
        a, b = (runs[name][metrics[0].name] for name in (arm, control))
        return Contrast(arm, control, estimate(a), estimate(b), estimate(a - b), meaning)

    classes = [str(d) for d in range(10)]
    confusion = [[40 if a == b else int(rng.integers(0, 4)) for b in range(10)] for a in range(10)]
    curves = [
        Curve(
            arm,
            seed,
            list(range(0, 25_601, 640)),
            [2.0 * np.exp(-s / 9000) + 2.9 - 1.4 * ACCURACY[arm] + float(rng.normal(0, 0.03)) for s in range(41)],
        )
        for arm in SUBSETS
        for seed in range(SEEDS)
    ]
    for curve in curves:
        curve.loss = [
            4.85 - (4.85 - v) * (1 - np.exp(-s / 5000)) for s, v in zip(curve.samples, curve.loss, strict=True)
        ]
    for curve in curves:
        curve.others = _other_measures(curve, rng)
    per_class = {a: (ACCURACY[a] + rng.normal(0, 0.06, 10)).clip(0, 1).tolist() for a in SUBSETS}
    return {
        "headline": Headline(
            metrics[0],
            [
                contrast("curated", "everything", "no filter"),
                contrast("curated", "random", "random, same size"),
                contrast("random", "everything", "size alone"),
            ],
        ),
        "leaderboard": Leaderboard(
            metrics,
            arms,
            "everything",
            "95 % t interval over seeds",
            [PerClass(metrics[0].label, classes, per_class)],
            [Confusion(a, classes, confusion) for a in ("curated", "everything")],
        ),
        "curves": curves,
        "trainings": [_training(c) for c in curves],
    }


def _other_measures(curve: Curve, rng: Any) -> dict[str, Line]:
    """What a training logs beside its loss, and its validation loss at a few places."""
    at = np.asarray(curve.samples) / curve.samples[-1]
    rate = 5e-4 * np.where(at < 0.1, at / 0.1, 0.5 * (1 + np.cos(np.pi * (at - 0.1) / 0.9)))
    norm = 1.2 * np.exp(-3 * at) + rng.gamma(9, 0.02, len(at))
    loss = [curve.loss[i] + 0.15 + float(rng.normal(0, 0.01)) for i in (10, 20, 30, 40)]
    places = [curve.samples[i] for i in (10, 20, 30, 40)]
    return {
        "lr": Line(curve.samples, rate.tolist()),
        "logit_scale": Line(curve.samples, (14.3 + 9 * at * ACCURACY[curve.arm]).tolist()),
        "grad_norm": Line(curve.samples, norm.tolist()),
        "validation_loss": Line(places, loss),
        "<b>teacher</b> & co": Line(curve.samples, (0.3 * np.exp(-at)).tolist()),
    }


def _training(curve: Curve) -> Training:
    samples = {"everything": 3412, "random": 1204, "clip_top": 1204, "curated": 1204}[curve.arm]
    return Training(
        curve.arm,
        curve.seed,
        steps=400,
        samples_seen=25_600,
        epochs=25_600 / samples,
        samples=samples,
        distinct=samples - 7 * curve.seed,
        parameters=1_234_567,
        corrupt=2 if curve.arm == "everything" else 0,
        replaced=15 if curve.arm == "everything" else 0,
        flops=3.1e12,
        seconds=41.0 + curve.seed,
        samples_per_second=25_600 / (41.0 + curve.seed),
        data_wait=0.012 * (1 + curve.seed),
        sessions=1,
        peak_bytes=610_000_000 + 1_000_000 * curve.seed,
        device="cpu",
        devices=1,
        cost=0.00071,
    )


def _stages() -> Stages:
    rows = [
        ("pool", 6.1, "run", 0.4, 4, 4000, "rows", 9_812_345, 310_000_000),
        ("pool/trusted", 1.2, "reused", None, 1, 300, "rows", 801_000, 280_000_000),
        ("encoder/dfn", 19.4, "run", 6.6, 1, 19_200, "samples", 3_200_000, 890_000_000),
        ("embed/dfn", 5.2, "run", 26.2, 4, 3680, "images", 1_900_000, 760_000_000),
        ("score/dfn_score", 0.3, "run", 31.6, 4, 3680, "rows", 30_000, 210_000_000),
        ("score/language", 0.8, "run", 26.4, 4, 3680, "rows", 30_000, 240_000_000),
        ("subset/curated", 2.2, "run", 32.0, 4, 4000, "rows", 120_000, 260_000_000),
        *((f"pretrain/{s}", 31.0, "run", 34.5 + 31 * i, 5, 128_000, "samples", 16_000_000, 940_000_000)
          for i, s in enumerate(SUBSETS)),
        ("eval/curated", 3.9, "run", 159.0, 5, 2250, "images", 300_000, 700_000_000),
        ("release/curated", 1.1, "run", 163.0, 1, 900, "images", 3_100_000, 240_000_000),
    ]  # fmt: skip
    return Stages([StageTime(n, s, st, a, p, i, u, b, m) for n, s, st, a, p, i, u, b, m in rows], 164.8)  # type: ignore[arg-type]
