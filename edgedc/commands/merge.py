"""`edgedc merge`: adapter and base to one model folder."""

from pathlib import Path
from typing import Any

import click

from edgedc.bundle import newest
from edgedc.cli import workshop
from edgedc.flags import flags


@click.command()
@flags(workshop("train.settings").MergeSettings)
@click.argument("adapter", type=click.Path(path_type=Path), required=False)
@click.argument("out", type=click.Path(path_type=Path), required=False)
def command(mergesettings: Any, adapter: Path | None, out: Path | None) -> None:
    """Merge ADAPTER into its base and write the model folder OUT.

    By default ADAPTER is the newest adapter in this folder and OUT stands beside it.
    """
    if adapter is None:
        adapter = newest("adapter", Path())
        click.echo(f"adapter: {adapter}, the newest here", err=True)
    if out is None:
        out = adapter.resolve().with_name(f"{adapter.resolve().name}-merged")
    click.echo(str(workshop("train.merge").merge(adapter, out, mergesettings)))
