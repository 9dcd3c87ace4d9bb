"""`edgedc train`: a LoRA adapter from demonstrations, or a tiny model from scratch."""

from pathlib import Path
from typing import Any

import click

from edgedc.cli import workshop
from edgedc.flags import flags


@click.command()
@flags(workshop("train.settings").TrainSettings)
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def command(trainsettings: Any, data: Path, out: Path) -> None:
    """Train on DATA, the rows of `edgedc teach`, and write an adapter to OUT.

    Loss is on the completions only. With --from-scratch OUT is a whole model, and DATA may also hold documents, a line
    being {"prompt": ..., "completion": ...}. Runs on a GPU when there is one.
    """
    trained = workshop("train.sft").train(data, out, trainsettings, show)
    left_out = "".join(f", {count} left out: {why}" for why, count in trained.left_out.items())
    click.echo(
        f"{trained.folder}: {trained.trained_parameters:,} weights trained on {trained.rows} rows in "
        f"{trained.seconds:.0f} s{left_out}"
    )


def show(progress: Any) -> None:
    """One line on stderr for each entry of the log."""
    click.echo(
        f"  step {progress.step}/{progress.steps}  loss {progress.loss:.4f}  {progress.tokens_per_s:,.0f} tokens/s  "
        f"{progress.eta_s:.0f} s left",
        err=True,
    )
