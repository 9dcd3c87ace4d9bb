"""Verbs run by other verbs, as a person would type them."""

import shlex
from typing import Any

import click

from edgedc.cli import cli


def run(*args: object) -> None:
    """Show a verb as a person would type it, and run it."""
    words = [str(arg) for arg in args]
    click.echo(f"\n$ edgedc {shlex.join(words)}", err=True)
    cli.main(words, prog_name="edgedc", standalone_mode=False)


def values(*args: object) -> dict[str, Any]:
    """What a verb would be given, by the names of its parameters; recipe and environment are read, nothing is run.

    Raises what the verb would raise for them.
    """
    verb, *words = [str(arg) for arg in args]
    root = click.Context(cli, info_name="edgedc", **cli.context_settings)
    command = cli.get_command(root, verb)
    assert command is not None, verb
    return command.make_context(verb, words, parent=root).params
