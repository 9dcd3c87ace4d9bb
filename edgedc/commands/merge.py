"""`edgedc merge`: adapter and base to one model folder."""

from pathlib import Path
from typing import Any

import click

from edgedc.bundle import newest, read_manifest
from edgedc.flags import flags
from edgedc.workshop import workshop


@click.command()
@flags(workshop("train.settings").MergeSettings)
@click.argument("adapter", type=click.Path(path_type=Path), required=False)
@click.argument("out", type=click.Path(path_type=Path), required=False)
def command(mergesettings: Any, adapter: Path | None, out: Path | None) -> None:
    """Merge ADAPTER into its base and write the model folder OUT.

    By default ADAPTER is the newest adapter in this folder and OUT stands beside it. The merged model is read back, and
    must score the next token as base and adapter do: else nothing is written, and the exit code is 3.
    """
    if adapter is None:
        adapter = newest("adapter", Path())
        click.echo(f"adapter: {adapter}, the newest here", err=True)
    if out is None:
        out = adapter.resolve().with_name(f"{adapter.resolve().name}-merged")
    model = workshop("train.merge").merge(adapter, out, mergesettings)
    merge = read_manifest(model).recipe["merge"]
    for onto, figures in merge.get("tried", {}).items():
        click.echo(f"onto the {onto}: {told(figures)}", err=True)
    click.echo(f"merged onto the {merge['onto']}, against base and adapter: {told(merge['agreement'])}", err=True)
    click.echo(str(model))


def told(agreement: dict[str, Any]) -> str:
    """The figures of train/agreement.py in a line."""
    kl, top1, most = agreement["kl"], agreement["top1"], agreement["max_difference"]
    return f"KL {kl:.1e}, top-1 {top1:.1%} of {agreement['positions']} positions, scores differ by up to {most:.2g}"
