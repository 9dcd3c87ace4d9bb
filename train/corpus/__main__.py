"""python -m train.corpus OUT.jsonl: writes a corpus for `edgedc train`."""

import sys
from pathlib import Path

import click

from edgedc.errors import EdgedcError
from edgedc.flags import flags

from .mix import CorpusSettings, write_corpus


@click.command(context_settings={"max_content_width": 120})
@flags(CorpusSettings)
@click.option(
    "--held-out",
    type=click.Path(path_type=Path),
    multiple=True,
    help="File of test questions that no row may be like; edgedc knows public ones. Repeatable.",
)
@click.argument("out", type=click.Path(path_type=Path))
def command(corpussettings: CorpusSettings, held_out: tuple[Path, ...], out: Path) -> None:
    """Write a corpus to OUT: rows that `edgedc train` reads, the same ones for the same settings and files."""
    try:
        written = write_corpus(out, corpussettings, held_out, lambda count: click.echo(f"  {count:,} rows", err=True))
    except EdgedcError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    shares = ", ".join(f"{count:,} {name}" for name, count in written.rows.most_common())
    leaks = f"; {written.leaks.total()} like a test question left out" if written.leaks else ""
    click.echo(f"{out}: {written.rows.total():,} rows ({shares}){leaks}")


if __name__ == "__main__":
    command()
