"""Text that came from a model or a file, put on stdout."""

import sys

import click

from edgedc.errors import EdgedcError, InputError

# What a model says must not steer the terminal: its colours, its title, its clipboard.
_STEERING = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}")


def plain(text: str) -> str:
    """The text without what would steer a terminal."""
    return text.translate(_STEERING)


def check_shown() -> None:
    """Before anything is paid. Raises InputError where stdout is closed: the answer would be lost."""
    if sys.__stdout__ is None:
        raise InputError("stdout: closed, and an answer that is paid for would be lost; give it a place, as in  > FILE")


def say(text: str, *, nl: bool = True) -> None:
    """To stdout. A terminal is not steered; what it cannot write, and a lone surrogate, become escapes.

    Raises EdgedcError where nothing can be written, as on a full disk.
    """
    if sys.stdout.isatty():
        text = plain(text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=nl)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EdgedcError(f"stdout: cannot be written: {error.strerror}") from error
