"""edgedc pull: a model from the hub."""

from pathlib import Path

import click

from edgedc import hub
from edgedc.bundle import MANIFEST
from edgedc.catalogue import find_model


@click.command()
@click.argument("name", metavar="OWNER/NAME[@REVISION]")
@click.option("--file", "pattern", help="Which GGUF, where there are several; * stands for anything.")
def command(name: str, pattern: str | None) -> None:
    """Fetch a bundle, a GGUF or a model folder from the hub.

    A branch or tag, or no revision, stands for the commit that it is now, which is kept and shown. Every file is
    compared with the hub's hash; a download that was stopped goes on. Needs  pip install 'edgedc[hub]'  and reads
    HF_TOKEN and HF_ENDPOINT.
    """
    repository = hub.look_up(name)
    click.echo(f"{repository.name} at {repository.commit}", err=True)
    folder = hub.pull(repository, hub.select(repository, pattern), lambda line: click.echo(f"  {line}", err=True))
    click.echo(folder)
    verb = "decompose --model" if (folder / MANIFEST).is_file() else "train --base"
    short = Path(folder.name)
    click.echo(f"Use it with  edgedc {verb} {short if find_model(short) == folder else folder}", err=True)
