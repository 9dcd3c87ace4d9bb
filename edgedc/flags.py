"""Click options made from a dataclass, so that each default has one home."""

import dataclasses
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def flag(default: Any, help: str) -> Any:
    """A dataclass field with the help text of its flag."""
    return dataclasses.field(default=default, metadata={"help": help})


def flags(settings: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one flag per field of a dataclass, and pass it the filled dataclass.

    `max_steps: int = flag(100, "...")` becomes `--max-steps INTEGER`; a bool becomes `--x/--no-x`, a Literal a choice.
    The command gets the instance as an argument named after the class, in lower case.
    """
    hints = typing.get_type_hints(settings)
    fields = [f for f in dataclasses.fields(settings) if "help" in f.metadata]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def run(**given: Any) -> Any:
            chosen = {f.name: given.pop(f.name) for f in fields}
            return command(**{settings.__name__.lower(): settings(**chosen)}, **given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
        wrapped: Callable[..., Any] = run
        for f in reversed(fields):
            wrapped = _option(f, hints[f.name])(wrapped)
        return wrapped

    return decorate


def _option(f: "dataclasses.Field[Any]", hint: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    name = f.name.replace("_", "-")
    if typing.get_origin(hint) in (types.UnionType, typing.Union):  # `int | None`, `Literal[...] | None`
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    declaration = f"--{name}/--no-{name}" if hint is bool else f"--{name}"
    kind: Any = hint
    if typing.get_origin(hint) is typing.Literal:
        kind = click.Choice(typing.get_args(hint))
    elif hint is Path:
        kind = click.Path(path_type=Path)
    shown = f.default is not None and f.default != ""
    return click.option(declaration, f.name, type=kind, default=f.default, show_default=shown, help=f.metadata["help"])
