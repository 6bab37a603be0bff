"""Time and memory of the scores over embeddings, beside plain full-matrix implementations and the bare product.

    python benchmarks/embedding_scores.py [--json] [--quick]

One thread each. For s-CLIPLoss (one batch of N = B = 8192, d = 512, tau = 0.01) and NormSim-inf (8192 images, 8192
targets) three sides take turns, round after round: ours, the whole matrix in torch (`logsumexp` along both axes, `amax`
of the absolute values), and the floor: only the matrix product, in tiles into a buffer that is used again. Times are
CPU seconds, medians over rounds, ratios are of paired rounds. Memory is what the peak of the resident set grows by over
the two arrays of embeddings, each side in a process of its own. Errors are against float64. The single-vector scores
follow as rows per second. With `--json` the last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

TAU = 0.01
Side = Callable[[np.ndarray, np.ndarray], np.ndarray]


def unit_rows(n: int, d: int, seed: int) -> np.ndarray:
    """Unit rows around a common direction, so that cosines are about 0.2 as CLIP's are, stored as float16."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d), np.float32) + np.float32(0.5)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


# --- the sides


def ours_s_clip(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    from curate.filters.scorers.s_clip_loss import batch_scores

    return batch_scores(image, text, TAU)


def whole_s_clip(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    import torch

    torch.set_num_threads(1)
    logits = torch.from_numpy(image) @ torch.from_numpy(text).T / TAU
    score = TAU * logits.diagonal() - TAU / 2 * (torch.logsumexp(logits, 1) + torch.logsumexp(logits, 0))
    return score.numpy()


def exact_s_clip(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    logits = image.astype(np.float64) @ text.astype(np.float64).T / TAU
    diagonal = np.diag(logits).copy()
    top = logits.max()
    np.exp(np.subtract(logits, top, out=logits), out=logits)  # float64 has room for one shift
    return TAU * diagonal - TAU / 2 * (np.log(logits.sum(1)) + np.log(logits.sum(0)) + 2 * top)


def ours_norm_sim(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    from curate.filters.scorers.norm_sim import largest_absolute_product

    return largest_absolute_product(image, (target[i : i + 4096] for i in range(0, len(target), 4096)))


def whole_norm_sim(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    import torch

    torch.set_num_threads(1)
    return (torch.from_numpy(image) @ torch.from_numpy(target).T).abs().amax(1).numpy()


def exact_norm_sim(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.abs(image.astype(np.float64) @ target.astype(np.float64).T).max(1)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The floor: the product alone, in tiles."""
    tile = np.empty((1024, 512), np.float32)
    for top in range(0, len(a), 1024):
        for left in range(0, len(b), 512):
            np.matmul(a[top : top + 1024], b[left : left + 512].T, out=tile)
    return tile[:, 0]


SCORES: dict[str, dict[str, Side]] = {
    "s_clip_loss": {"ours": ours_s_clip, "whole_matrix": whole_s_clip, "product": product},
    "norm_sim_inf": {"ours": ours_norm_sim, "whole_matrix": whole_norm_sim, "product": product},
}
EXACT: dict[str, Side] = {"s_clip_loss": exact_s_clip, "norm_sim_inf": exact_norm_sim}


# --- measuring


def peak_growth(score: str, side: str, n: int, d: int) -> float:
    """MB by which a side's peak exceeds what was resident with its inputs and libraries, in a fresh process."""
    command = [sys.executable, __file__, "--peak", score, side, str(n), str(d)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed arrays leave the resident set at once
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.split()[-1])


def report_peak(score: str, side: str, n: int, d: int) -> None:
    run = SCORES[score][side]
    run(*(unit_rows(64, 32, seed) for seed in (0, 1)))  # libraries and their buffers
    a, b = unit_rows(n, d, 0), unit_rows(n, d, 1)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    with open("/proc/self/status") as file:
        before = _status(file.read(), "VmRSS")
    run(a, b)
    with open("/proc/self/status") as file:
        print((_status(file.read(), "VmHWM") - before) / 1024)


def _status(text: str, field: str) -> int:
    return int(next(line for line in text.splitlines() if line.startswith(field)).split()[1])


def compare(score: str, n: int, d: int, rounds: int) -> dict[str, Any]:
    a, b = unit_rows(n, d, 0), unit_rows(n, d, 1)
    seconds: dict[str, list[float]] = {side: [] for side in SCORES[score]}
    found: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):
        for side, run in SCORES[score].items():
            started = time.process_time()
            found[side] = run(a, b)
            if turn:  # the first warms up
                seconds[side].append(time.process_time() - started)
    median = {side: statistics.median(times) for side, times in seconds.items()}
    exact = EXACT[score](a, b)

    def ratio(x: str, y: str) -> float:
        return statistics.median(p / q for p, q in zip(seconds[x], seconds[y], strict=True))

    return {
        "n": n,
        "d": d,
        "seconds": {side: round(value, 3) for side, value in median.items()},
        "product_gflops": round(2 * n * n * d / median["product"] / 1e9, 1),
        "speedup_over_whole_matrix": round(ratio("whole_matrix", "ours"), 2),
        "over_product": round(ratio("ours", "product"), 3),
        "peak_mb": {side: round(peak_growth(score, side, n, d), 1) for side in ("ours", "whole_matrix")},
        "largest_error": {side: float(np.abs(found[side] - exact).max()) for side in ("ours", "whole_matrix")},
    }


def rows_per_second(n: int, d: int, rounds: int) -> dict[str, int]:
    """Scores that compare each row with few vectors."""
    from curate.filters.head import Head
    from curate.filters.scorers.class_probabilities import classify
    from curate.filters.scorers.clip_similarity import row_products
    from curate.filters.scorers.norm_sim import quadratic_norm

    rows, others = unit_rows(n, d, 2), unit_rows(n, d, 3)
    classes = unit_rows(1000, d, 4)
    matrix = others.astype(np.float64).T @ others.astype(np.float64)
    head = Head(((others[:1].astype(np.float64), np.zeros(1)),), 1)
    sides: dict[str, Callable[[], object]] = {
        "clip_similarity": lambda: row_products(rows, others),
        "norm_sim_2": lambda: quadratic_norm(rows, matrix),
        "aesthetic": lambda: head(rows),
        "class_prompts_1000": lambda: classify(rows, classes, 100.0, []),
    }
    found = {}
    for name, run in sides.items():
        times = []
        for _ in range(rounds + 1):
            started = time.process_time()
            run()
            times.append(time.process_time() - started)
        found[name] = round(n / statistics.median(times[1:]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        score, side, n, d = arguments.peak
        report_peak(score, side, int(n), int(d))
        return
    n, d, rounds = (2048, 256, 3) if arguments.quick else (8192, 512, 5)
    result: dict[str, Any] = {score: compare(score, n, d, rounds) for score in SCORES}
    result["rows_per_second"] = rows_per_second(n, d, rounds)
    result["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    for score in SCORES:
        facts = result[score]
        print(f"{score}: {facts['seconds']['ours']} s, {facts['over_product']} x the bare product", end=", ")
        print(f"{facts['speedup_over_whole_matrix']} x faster than the whole matrix", end=", ")
        print(f"memory {facts['peak_mb']['ours']} MB against {facts['peak_mb']['whole_matrix']} MB")
    print("rows a second:", ", ".join(f"{name} {value:,}" for name, value in result["rows_per_second"].items()))
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
