"""Recipes: TOML files with a table for each verb, between the verb's defaults and its environment variables and flags.

[about]                      what it is for, the memory and time to expect, and where those figures come from
[train]                      a key is a flag of the verb, with _ for -
learning_rate = 2e-5
max_subquestions = "none"    where a flag takes the word none
"""

import importlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import click

from edgedc.errors import InputError
from edgedc.files import read_text
from edgedc.flags import RECIPE, OrNone
from edgedc.workshop import workshop

VERBS = ("teach", "screen", "train", "merge", "export")
ABOUT = ("purpose", "memory", "time", "source")


@dataclass(frozen=True)
class Recipe:
    """`tables` has one table per verb, its values by the names of click's parameters; `about` is text for people."""

    name: str
    about: dict[str, str]
    tables: dict[str, dict[str, Any]]


def known_recipes() -> dict[str, Path]:
    """The recipes that ship with edgedc, by name."""
    folder = Path(str(resources.files(workshop("train").__name__))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem)}


def find_recipe(name: str) -> Recipe:
    """A recipe that ships with edgedc, or a file. Raises InputError as `read_recipe` does, or when there is none."""
    known = known_recipes()
    path = known.get(name, Path(name))
    if not path.is_file():
        raise InputError(f"{name}: no such recipe and no such file{_instead(name, known)}")
    return read_recipe(path, path.stem if name in known else name)


def read_recipe(path: Path, name: str) -> Recipe:
    """Raises InputError, naming the file and the key, for what is not TOML, not a flag's name or not its type."""
    try:
        tables = tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is one; a number of 5,000 digits is another
        raise InputError(f"{path}: not TOML: {error}") from error
    for table, keys in tables.items():
        if not isinstance(keys, dict):
            raise InputError(f"{path}: {table} = {_toml(keys)} stands in no table: write [train] or another verb above")
        if table not in ("about", *VERBS):
            raise InputError(f"{path}: [{table}] is no table of a recipe{_instead(table, ('about', *VERBS))}")
    about = tables.pop("about", {})
    for key, value in about.items():
        if key not in ABOUT:
            raise InputError(f"{path}: [about] has no key {key!r}{_instead(key, ABOUT)}")
        if not isinstance(value, str):
            raise InputError(f"{path}: [about] {key} = {_toml(value)}: must be text")
    return Recipe(name, about, {verb: _values(path, verb, keys) for verb, keys in tables.items()})


def recipe_option() -> click.Option:
    """`--recipe`: read before the other options, whose defaults it replaces."""

    def read(context: click.Context, _: click.Parameter, name: str | None) -> None:
        if name is not None:
            recipe = find_recipe(name)
            context.default_map = recipe.tables.get(str(context.info_name), {})
            context.meta[RECIPE] = recipe.name

    return click.Option(
        ["--recipe"],
        is_eager=True,
        expose_value=False,
        callback=read,
        metavar="NAME|FILE",
        help="Take defaults from the verb's table in this recipe; environment variables and flags win over it.",
    )


def options_of(command: click.Command) -> dict[str, click.Option]:
    """The options of a verb by the keys that a recipe has for them: the flag's name, with _ for -."""
    options = [p for p in command.params if isinstance(p, click.Option) and p.name != "recipe"]
    return {option.opts[0].removeprefix("--").replace("-", "_"): option for option in options}


def _values(path: Path, verb: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    options = options_of(importlib.import_module(f"edgedc.commands.{verb}").command)
    context = click.Context(click.Command(verb))
    values = {}
    for key, value in keys.items():
        if key not in options:
            raise InputError(f"{path}: [{verb}] has no key {key!r}{_instead(key, options)}")
        option = options[key]
        given = [value] if option.multiple and not isinstance(value, list) else value
        said = f"{path}: [{verb}] {key} = {_toml(value)}"
        if not _fits(option, given):
            raise InputError(f"{said}: must be {_wanted(option)}")
        try:
            option.type_cast_value(context, given)
        except click.BadParameter as error:
            raise InputError(f"{said}: {error.message}") from error
        assert option.name is not None
        values[option.name] = given
    return values


def _fits(option: click.Option, value: Any) -> bool:
    """Stricter than click, which would take 1.5 for the whole number 1, and true for 1."""
    if option.multiple:
        return isinstance(value, list) and all(_is(option.type, each) for each in value)
    return _is(option.type, value)


def _is(kind: "click.ParamType[Any]", value: Any) -> bool:
    if isinstance(kind, OrNone):
        return value == "none" or _is(kind.kind, value)
    if isinstance(kind, click.types.BoolParamType):
        return isinstance(value, bool)
    if isinstance(kind, click.types.IntParamType):
        return type(value) is int
    if isinstance(kind, click.types.FloatParamType):
        return type(value) in (int, float)
    if isinstance(kind, click.Choice):
        return value in kind.choices
    return isinstance(value, str)


def _wanted(option: click.Option) -> str:
    kind = option.type.kind if isinstance(option.type, OrNone) else option.type
    if isinstance(kind, click.types.BoolParamType):
        words = "true or false"
    elif isinstance(kind, click.types.IntParamType):
        words = "a whole number"
    elif isinstance(kind, click.types.FloatParamType):
        words = "a number"
    elif isinstance(kind, click.Choice):
        words = " or ".join(f'"{choice}"' for choice in kind.choices)
    else:
        words = "text in quotes"
    if isinstance(option.type, OrNone):
        words += ' or "none"'
    return f"{words}, or a list of such" if option.multiple else words


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant; "" where none is near."""
    import difflib  # not at every start

    return next(iter(difflib.get_close_matches(name, known, n=1)), "")


def _instead(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else f"; there are {', '.join(known)}"


def _toml(value: Any) -> str:
    """A value as TOML writes it, near enough for a message."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
