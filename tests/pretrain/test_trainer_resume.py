"""Killed or stopped anywhere and run again: the same bytes, with every kind of state that a training can have."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from curate.pretrain.recipe import RECIPES, Recipe
from curate.pretrain.stopping import Stopped

sys.path.insert(0, str(Path(__file__).parent))
from training_runs import digests, part, run, tiny_model, with_columns

SEEN = 12 * 5 + 3
LABELS = {"column": "tags", "loss": "multi_label"}
PLAIN: dict[str, Any] = {"batch_size": 12, "lr": 1e-3, "warmup": 2, "log_every": 4, "checkpoint_every_s": 0}
PHASES = [
    {"share": 0.4, "image_size": 48, "patch_keep": 0.5, "text_length": 6, "text_cut": "random", "batch_size": 8},
    {"share": 0.3, "image_size": 16, "text_length": 8, "text_cut": "block"},
    {"share": 0.3, "restart": True},
]
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "ema, muon": ({"type": "clip", "ema": {"decay": 0.6}, "optimizer": "muon", "precision": "fp32"}, "tiny"),
    "lion, snapshots": ({"type": "siglip", "optimizer": "lion", "snapshots": {"number": 4, "keep": 2}}, "tiny"),
    "sgd, phases": ({"type": "clip", "optimizer": "sgd", "phases": PHASES}, "tiny"),
    "mixed labels": (
        {"type": "supervised", "labels": LABELS, "mix": {"mixup": 0.4}, "classifier": {"dropout": 0.3}},
        "RN-mini-32",
    ),
    "captions and labels": (
        {"type": "clip", "labels": {"column": "label"}, "supcon": {}, "captions": {"caption": 1, "other": 2}},
        "tiny",
    ),
    "pieces, skipping": ({"type": "clip", "micro_batch": 5, "skip_bad_steps": 2, "grad_clip": 0.5}, "tiny"),
}


class Killed(Exception):
    pass


def recipe_of(name: str) -> Recipe:
    options = {**PLAIN, **CASES[name][0]}
    return RECIPES[options["type"]].model_validate(options)


@pytest.mark.parametrize("name", CASES)
def test_killed_after_every_other_step_gives_the_same_bytes(tmp_path, squares, name):
    recipe, model = recipe_of(name), tiny_model(tmp_path) if CASES[name][1] == "tiny" else CASES[name][1]
    parts = [part([with_columns(shard, tmp_path / "full") for shard in squares])]
    arguments = (recipe, model, parts, SEEN)

    def go(folder: str, kill_at: int = SEEN) -> None:
        def progress(done: int, total: int) -> None:
            if kill_at <= done < total:
                raise Killed

        run(tmp_path / folder, *arguments, progress=progress, validation=parts[0])

    go("undisturbed")
    for samples in (1, 25, 37, 60):
        with pytest.raises(Killed):
            go("killed", samples)
    go("killed")
    expected = digests(tmp_path / "undisturbed")
    assert digests(tmp_path / "killed") == expected
    assert sum("samples_" in name for name in expected) == (
        0 if "snapshots" not in name else 3 if "best" in name else 2
    )


@pytest.mark.parametrize("by", ["signal", "function"])
def test_asked_to_stop_it_saves_and_goes_on_later(tmp_path, squares, by):
    recipe = recipe_of("ema, muon").model_copy(update={"checkpoint_every_s": 3600.0})
    model, parts = tiny_model(tmp_path), [part([with_columns(shard, tmp_path / "full") for shard in squares])]

    def progress(done: int, total: int) -> None:
        if done == 24 and by == "signal":
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    stop = (lambda: True) if by == "function" else None
    with pytest.raises(Stopped) as stopped:
        run(tmp_path / "stopped", recipe, model, parts, SEEN, progress=progress, stop=stop)
    assert signal.getsignal(signal.SIGTERM) == before
    assert (stopped.value.done, stopped.value.total) == ((36, SEEN) if by == "signal" else (12, SEEN))
    saved = [path.name for path in (tmp_path / "stopped/scratch").glob("state_*.json")]
    assert saved == [f"state_{3 if by == 'signal' else 1:010d}.json"]
    run(tmp_path / "stopped", recipe, model, parts, SEEN)
    run(tmp_path / "undisturbed", recipe, model, parts, SEEN)
    assert digests(tmp_path / "stopped") == digests(tmp_path / "undisturbed")
