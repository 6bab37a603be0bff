"""The command: `curate run config.yaml` and the commands around it.

Exit codes: 0 done, 1 failed, 2 bad config, 130 interrupted (run again to go on).
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch load: one thread per worker, equal everywhere

import typer
from rich.console import Console

from .. import __version__
from ..errors import CurateError

app = typer.Typer(
    name="curate",
    help="One YAML file in; a released dataset, trained models and an evaluation report out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@contextmanager
def _loading() -> Iterator[None]:
    """Load modules without looking for garbage meanwhile: there is none, and looking takes a fifth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


ConfigArgument = Annotated[str, typer.Argument(help="Config file.", metavar="CONFIG")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="Dotted overrides such as pretrain.batch_size=512.", metavar="KEY=VALUE...")
]


@app.command()
def run(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another run uses the workdir.")] = False,
    until: Annotated[
        str, typer.Option("--until", metavar="STAGE", help="Stop after this stage (pool, score, subset/NAME...).")
    ] = "",
    retry: Annotated[
        str,
        typer.Option("--retry", metavar="failed[:CODE,...]", help="Fetch failed rows again, of these reasons or all."),
    ] = "",
) -> None:
    """Run a config to its end.

    Finished work is reused; after a kill, the same command goes on.
    """
    with _loading():
        from .commands.run import run_config

    run_config(config, overrides or [], out, err, wait, until, retry)


@app.command()
def plan(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Show what a run will do.

    Its stages: which will run, which are reused, how many parts, and how long they may take.
    """
    from .commands.plan import show_plan

    show_plan(config, overrides or [], out)


@app.command()
def check(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Validate a config before any work.

    Also the paths, models, memory and disk that it needs.
    """
    from .commands.check import check_config

    check_config(config, overrides or [], out)


@app.command()
def status(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Show how far a run is, from any shell."""
    from .commands.status import show_status

    show_status(config, overrides or [], out)


@app.command()
def explain(
    config: ConfigArgument,
    uid: Annotated[str, typer.Argument(help="uid of a sample: 32 hexadecimal characters, or the first few.")],
) -> None:
    """Tell the fate of one sample.

    In every subset: kept, or dropped by which filter, for what reason and with what value.
    """
    from .commands.explain import explain_sample

    explain_sample(config, uid, out)


@app.command()
def overlap(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    view: Annotated[str, typer.Option("--as", metavar="share|rows|jaccard", help="What the table holds.")] = "share",
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show which rows the subsets have in common.

    How much of each finished subset is in each other one.
    """
    from .commands.overlap import show_overlap

    show_overlap(config, overrides or [], out, view, as_json)


@app.command()
def whatif(
    config: ConfigArgument,
    subset: Annotated[str, typer.Argument(help="A subset of the config.", metavar="SUBSET")],
    filter: Annotated[
        str, typer.Argument(help="One more filter: {type: top_fraction, by: clip_score, keep: 0.2}", metavar="FILTER")
    ],
    examples: Annotated[int, typer.Option("--examples", min=0, max=100, help="Samples to show of each side.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Tell what one more filter would drop.

    Applies it to what a finished subset keeps, and publishes nothing.
    """
    from .commands.whatif import show_what_if

    show_what_if(config, subset, filter, out, examples, as_json)


@app.command()
def report(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Write the report again.

    From finished stages, also of a run that has not ended; says where it is.
    """
    from .commands.report import write_report

    write_report(config, overrides or [], out, open_browser)


@app.command()
def evaluate(
    models: Annotated[
        list[str], typer.Argument(help="Model folders, or names of models (then --pretrained).", metavar="MODEL...")
    ],
    data: Annotated[
        list[str],
        typer.Option("--data", metavar="SET", help="Built-in set (digits), folder, or a mapping as in eval.data."),
    ],
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", metavar="SUITE", help="zero_shot (default), retrieval, ... or a mapping; repeatable."),
    ] = None,
    to: Annotated[str, typer.Option("--out", metavar="FOLDER", help="Where results go.")] = "evaluation",
    pretrained: Annotated[str, typer.Option("--pretrained", metavar="FILE", help="Checkpoint of a named model.")] = "",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda...")] = "auto",
) -> None:
    """Evaluate models that exist, without a config.

    Pictures are read once for all models. After a kill, the same command goes on.
    """
    with _loading():
        from .commands.evaluate import evaluate_named

    evaluate_named(models, data, suite or ["zero_shot"], to, out, err, pretrained, device)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Run folders (runs/NAME) or config files.", metavar="RUN...")],
    to: Annotated[str, typer.Option("--out", metavar="FOLDER", help="Where the page goes.")] = "compare",
    control: Annotated[
        str, typer.Option("--control", metavar="ARM", help="What the others are compared with; default: the first.")
    ] = "",
    encoders: Annotated[bool, typer.Option("--encoders", help="Filter networks and loaded models, too.")] = False,
    shift: Annotated[
        list[str] | None,
        typer.Option("--shift", metavar="SET=SHIFTED,...", help="For effective robustness; default: ImageNet's."),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Compare finished runs on one page.

    Leaderboard with intervals and ranks, paired tests, classes, groups, mistakes; and all results as one parquet file.
    """
    from .commands.compare import compare_runs

    compare_runs(runs, to, out, control, encoders, shift or [], open_browser)


@app.command()
def reshard(
    subset: Annotated[str, typer.Argument(help="Subset file: .npy of uids, or DataComp's raw form.", metavar="SUBSET")],
    pool: Annotated[
        str, typer.Argument(help="Folder of shards: img2dataset, DataComp, any WebDataset.", metavar="POOL")
    ],
    out: Annotated[str, typer.Argument(help="Folder of the new shards.", metavar="OUT")],
    samples_per_shard: Annotated[int, typer.Option("--samples-per-shard", help="Samples per new shard.")] = 10_000,
    shuffle: Annotated[bool, typer.Option("--shuffle/--no-shuffle", help="Random order, or the pool's.")] = True,
    seed: Annotated[int, typer.Option("--seed", help="Decides the random order.")] = 0,
    workers: Annotated[int, typer.Option("--workers", help="Worker processes; 0 = one per CPU.")] = 0,
) -> None:
    """Write a subset of existing shards as new shards.

    Payloads are copied unchanged, uids repeated as the subset says, missing ones listed. After a kill, the same command
    goes on.
    """
    from .commands.reshard import reshard_subset

    reshard_subset(subset, pool, out, samples_per_shard, shuffle, seed, workers, Console(highlight=False), err)


@app.command()
def init(path: Annotated[str, typer.Argument(help="File to write.")] = "config.yaml") -> None:
    """Write a commented starter config."""
    from .commands.init import write_starter

    write_starter(path, out)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors."""
    import json

    from .config import Config

    print(json.dumps(Config.model_json_schema(), indent=2))


def _version(value: bool) -> None:
    if value:
        print(f"curate {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: errors for people are one line; anything else is a bug and shows its traceback."""
    try:
        code: Any = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except CurateError as error:
        for line in str(error).splitlines():
            err.print(f"error: {line}", soft_wrap=True, markup=False)
        for note in getattr(error, "__notes__", ()):
            err.print(note, soft_wrap=True, markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("interrupted; run the same command again to go on")
        sys.exit(130)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001
        if type(error).__module__.startswith(("click", "typer")):  # wrong usage of the command line
            told = error.format_message() if hasattr(error, "format_message") else str(error)  # type: ignore[attr-defined]
            err.print(f"error: {told}", soft_wrap=True, markup=False)
            sys.exit(2)
        traceback.print_exc()
        err.print("error: this is a bug in curate; please report it with the lines above")
        sys.exit(1)


if __name__ == "__main__":
    main()
