"""One side of the evaluation benchmark, in a process of its own: clip-benchmark's command, ours, or a bare floor.

    python benchmarks/eval_side.py RESULT.json '{"side": "clip_benchmark", ...}'

Runs in the peer's environment too, so it imports nothing of ours before it is asked to. Each side is its own ordinary
entry (`clip_benchmark.cli.main` with command-line arguments; `curate.eval.evaluate.evaluate`); around a few of its
functions stands a clock, which costs microseconds per batch. RESULT.json: ``parts``, seconds of ``[CPU, wall]`` of this
process by what it was doing, and ``children_cpu`` (loader processes).

Parts: ``start`` imports and loading of models, ``images`` decoding and the image tower (and waiting for pictures),
``texts`` tokenizer and text tower, ``metrics``, ``rest`` (opening sets, writing results).
"""

from __future__ import annotations

import functools
import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Parts:
    """Seconds by what is being done; what is inside another counts for itself alone."""

    def __init__(self, begun: float) -> None:
        """`begun`: the machine's monotonic clock when the process was started."""
        self.seconds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._now = "start"
        self._cpu, self._wall = 0.0, begun

    def switch(self, name: str) -> str:
        """From here on it is `name`; returns what it was."""
        cpu, wall = time.process_time(), time.monotonic()
        part = self.seconds[self._now]
        part[0] += cpu - self._cpu
        part[1] += wall - self._wall
        before, self._now, self._cpu, self._wall = self._now, name, cpu, wall
        return before

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time under `name`."""

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            before = self.switch(name)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch(before)

        return run

    def wrap(self, name: str, owner: Any, attribute: str) -> None:
        """Put a clock around a function of a module or class."""
        setattr(owner, attribute, self.timed(name, getattr(owner, attribute)))


def clip_benchmark(parts: Parts, options: dict[str, Any]) -> None:
    """Its command line, once for each of its tasks. Loads the model once per set, as it does for everybody."""
    from clip_benchmark import cli
    from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

    load = cli.load_clip

    def load_clip(*args: Any, **kwargs: Any) -> Any:
        model, transform, tokenizer = parts.timed("start", load)(*args, **kwargs)
        model.encode_image = parts.timed("images", model.encode_image)
        model.encode_text = parts.timed("texts", model.encode_text)
        return model, transform, parts.timed("texts", tokenizer)

    cli.load_clip = load_clip
    parts.wrap("texts", zeroshot_classification, "zero_shot_classifier")
    parts.wrap("images", zeroshot_classification, "run_classification")
    for name in ("accuracy", "balanced_accuracy_score", "average_precision_per_class"):
        parts.wrap("metrics", zeroshot_classification, name)
    parts.wrap("images", zeroshot_retrieval, "evaluate")  # it waits for pictures between the calls of the model
    parts.wrap("metrics", zeroshot_retrieval, "batchify")
    parts.switch("rest")
    retrieval = [name for name in options["sets"] if name in options["retrieval"]]
    others = [name for name in options["sets"] if name not in retrieval]
    for task, names in (("zeroshot_classification", others), ("zeroshot_retrieval", retrieval)):
        sys.argv = [
            "clip_benchmark",
            "eval",
            *["--task", task, "--dataset", *(f"wds/{name}" for name in names)],
            *["--dataset_root", f"{options['root']}/wds_{{dataset_cleaned}}_test"],
            *["--model", options["model"], "--pretrained", options["weights"]],
            *["--no_amp", "--num_workers", str(options["workers"]), "--batch_size", str(options["batch"])],
            *["--recall_k", "1", "5", "10"],
            *["--output", f"{options['out']}/{{dataset}}.json", "--quiet"],
        ]
        cli.main()


def suites_for(kinds: list[str]) -> list[Any]:
    """Our suites with clip-benchmark's protocols, one per kind of set."""
    from curate.eval.suites import parse_suites

    types = {"classification": "zero_shot", "multilabel": "multi_label", "retrieval": "retrieval"}
    return parse_suites([types[kind] for kind in kinds])


def ours(parts: Parts, options: dict[str, Any]) -> None:
    """`curate.eval.evaluate.evaluate`."""
    from curate.eval import evaluate as module
    from curate.pretrain.encoders import load_encoder

    parts.wrap("start", load_encoder, "load_encoder")
    parts.wrap("texts", module.TextFeatures, "add")
    parts.wrap("images", module.EmbedOnce, "__call__")
    suites = suites_for(options["kinds"])
    for kind in {type(suite) for suite in suites}:
        parts.wrap("metrics", kind, "evaluate")
    parts.switch("rest")
    folders = [f"{options['root']}/wds_{name.replace('/', '-')}_test" for name in options["sets"]]
    module.evaluate(options["model"], folders, suites, options["out"], None, "cpu", None, options["weights"])


def floor(parts: Parts, options: dict[str, Any]) -> None:
    """The least that the same model needs for the distinct pictures: open_clip's image tower over ready tensors, and
    decoding alone."""
    import io
    import tarfile

    import open_clip
    import torch
    from PIL import Image

    model, _, transform = open_clip.create_model_and_transforms(options["model"], pretrained=options["weights"])
    model = model.eval()
    parts.switch("rest")
    files: dict[bytes, None] = {}  # each once
    for name in options["sets"]:
        with tarfile.open(f"{options['root']}/wds_{name.replace('/', '-')}_test/test/0.tar") as tar:
            for member in tar:
                if member.name.endswith((".webp", ".jpg")):
                    files[tar.extractfile(member).read()] = None  # type: ignore[union-attr]
    parts.switch("decode")
    for data in files:
        Image.open(io.BytesIO(data)).convert("RGB")
    parts.switch("rest")
    one = transform(Image.open(io.BytesIO(next(iter(files)))))
    batch = torch.stack([one] * 16)  # type: ignore[arg-type]
    with torch.inference_mode():
        model.encode_image(batch)
        parts.switch("forward")
        for _ in range(0, len(files), len(batch)):
            model.encode_image(batch)
        parts.switch("rest")


def main() -> None:
    result, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    parts = Parts(options["begun"])
    sides = {"clip_benchmark": clip_benchmark, "ours": ours, "floor": floor}
    import torch

    torch.set_num_threads(options["threads"])
    sides[options["side"]](parts, options)
    parts.switch("end")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {"parts": dict(parts.seconds), "children_cpu": children.ru_utime + children.ru_stime}
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
