"""Click options made from a dataclass, so that each default has one home."""

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edgedc.errors import InputError

RECIPE = "edgedc.recipe"  # where a click context keeps the name of the recipe that it reads; see recipes.py


def flag(default: Any, help: str) -> Any:
    """A dataclass field with the help text of its flag."""
    return dataclasses.field(default=default, metadata={"help": help})


def sources() -> Any:
    """A dataclass field that `flags` fills with where each value came from; see `sources_of`. Not part of equality."""
    return dataclasses.field(default_factory=dict, compare=False)


def sources_of(names: Iterable[str]) -> dict[str, str]:
    """Where the running verb has each of these values from: `flag`, `environment`, `recipe NAME` or `default`."""
    context = click.get_current_context()
    words = {
        ParameterSource.COMMANDLINE: "flag",
        ParameterSource.ENVIRONMENT: "environment",
        ParameterSource.DEFAULT_MAP: f"recipe {context.meta.get(RECIPE)}",
    }
    found = {name: context.get_parameter_source(name) for name in names}
    return {name: words.get(source, "default") if source else "default" for name, source in found.items()}


def resolved() -> dict[str, Any]:
    """Every option of the running verb as JSON has it, and under `sources` where each came from: for a manifest."""
    context = click.get_current_context()
    names = [p.name for p in context.command.params if isinstance(p, click.Option) and p.expose_value and p.name]
    return as_json({name: context.params[name] for name in names}) | {"sources": sources_of(names)}


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Paths become text and tuples lists, as they come back from a manifest."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


class OrNone(click.ParamType):  # type: ignore[type-arg]
    """A type that also takes the word `none`, so that a recipe or a flag can take a default back."""

    def __init__(self, kind: Any) -> None:
        self.kind = click.types.convert_type(kind)
        self.name = self.kind.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.lower() == "none":
            return None
        return self.kind.convert(value, param, ctx)

    @property
    def metavar(self) -> str:
        shown = "|".join(self.kind.choices) if isinstance(self.kind, click.Choice) else self.kind.name.upper()
        return f"[{shown}|none]"


def flags(settings: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one flag per field of a dataclass, and pass it the filled dataclass.

    `max_steps: int = flag(100, "...")` becomes `--max-steps INTEGER`; a bool becomes `--x/--no-x`, a Literal a choice.
    What may be None, unless it is a path, takes the word `none`. The command gets the instance as an argument named
    after the class, in lower case.
    """
    hints = typing.get_type_hints(settings)
    fields = [f for f in dataclasses.fields(settings) if "help" in f.metadata]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def run(**given: Any) -> Any:
            chosen = {f.name: given.pop(f.name) for f in fields}
            if "sources" in hints:
                chosen["sources"] = sources_of(chosen)
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
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)  # `int | None`, `Literal[...] | None`
    if optional:
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    declaration = f"--{name}/--no-{name}" if hint is bool else f"--{name}"
    kind: Any = hint
    if typing.get_origin(hint) is typing.Literal:
        kind = click.Choice(typing.get_args(hint))
    elif hint is Path:
        kind = click.Path(path_type=Path)
    metavar = None
    if optional and hint is not Path:
        kind = OrNone(kind)
        metavar = kind.metavar
    shown = f.default is not None and f.default != ""
    help = f.metadata["help"]
    elsewhere = hint is str and f.name.endswith(("_url", "_model"))
    return click.option(
        declaration,
        f.name,
        type=kind,
        default=f.default,
        show_default=shown,
        help=help,
        metavar=metavar,
        callback=_not_empty if elsewhere else None,
    )


def _not_empty(context: click.Context, param: click.Parameter, value: str) -> str:
    """Who is asked elsewhere. An empty name is a variable of the shell that is not set, and would stand for a server,
    or a model, that nobody named and that is paid."""
    assert param.name is not None
    given = context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    if given and not value.strip():
        raise InputError(f"{param.opts[0]}: empty; give a value, or leave it out")
    return value.strip()
