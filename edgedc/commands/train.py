"""`edgedc train`: an adapter or a whole model from demonstrations, or a tiny model from scratch."""

from pathlib import Path
from typing import Any

import click

from edgedc.flags import flags
from edgedc.workshop import workshop


@click.command()
@flags(workshop("train.settings").TrainSettings)
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def command(trainsettings: Any, data: Path, out: Path) -> None:
    """Train on DATA, the rows of `edgedc teach` or `edgedc screen`, and write an adapter to OUT.

    Loss is on the completions only. With --tuning full or --from-scratch OUT is a whole model. DATA may also hold
    documents, a line being {"prompt": ..., "completion": ...}. Runs on a GPU when there is one, on several with
    --num-processes; on several machines  accelerate launch -m edgedc train ...  starts it. Started again alike, a run
    that was killed goes on from its last checkpoint, and ends with the weights that it would have had.
    """
    trained = workshop("train.fitting.launch").train(data, out, trainsettings, show, warn)
    if trained is None:  # the first of accelerate's processes tells
        return
    left_out = "".join(f", {count} left out: {why}" for why, count in trained.left_out.items())
    kept = f"; weights of step {trained.best_step}, {held_out(trained.held_out)}" if trained.held_out else ""
    click.echo(
        f"{trained.folder}: {trained.trained_parameters:,} weights trained on {trained.rows} rows in "
        f"{trained.seconds:.0f} s{left_out}{kept}"
    )


def show(progress: Any) -> None:
    """One line on stderr for each entry of the log."""
    loss = held_out(progress.held_out) if progress.held_out else f"loss {progress.loss:.4f}"
    click.echo(
        f"  step {progress.step}/{progress.steps}  {loss}  {progress.tokens_per_s:,.0f} tokens/s  "
        f"{progress.memory_bytes / 1e9:.1f} GB  {progress.eta_s:.0f} s left",
        err=True,
    )


def held_out(figures: dict[str, float]) -> str:
    """The figures of a measurement, as `held-out loss 0.4210, exact 62.0%`."""
    shares = "".join(f", {name} {figures[name]:.1%}" for name in ("parsed", "count", "exact") if name in figures)
    rouge = f", ROUGE-L {figures['rouge_l']:.3f}" if "rouge_l" in figures else ""
    return f"held-out loss {figures['loss']:.4f}{shares}{rouge}"


def warn(line: str) -> None:
    click.echo(f"edgedc: {line}", err=True)
