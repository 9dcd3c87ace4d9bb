from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import pytest
from click.testing import CliRunner

from edgedc.flags import flag, flags, sources


@dataclass(frozen=True)
class Recipe:
    """Every kind of field that a settings class may have."""

    max_steps: int = flag(100, "Steps to take.")
    learning_rate: float = flag(1e-3, "Step size.")
    name: str = flag("", "A name.")
    shuffle: bool = flag(True, "Mix the rows.")
    style: Literal["plain", "bold"] = flag("plain", "A style.")
    other: Literal["a", "b"] | None = flag(None, "Another choice, or none.")
    limit: int | None = flag(None, "A limit, or none.")
    out: Path | None = flag(None, "A place, or none.")
    hidden: int = 7


@dataclass(frozen=True)
class Where:
    port: int = flag(80, "A port.")


@click.command()
@click.argument("word")
@flags(Recipe)
@flags(Where)
def command(recipe: Recipe, where: Where, word: str) -> None:
    """Say what came."""
    click.echo(repr((recipe, where, word)))


def said(*args: str) -> str:
    result = CliRunner().invoke(command, args)
    assert result.exit_code == 0, result.output
    return result.output.strip()


def test_defaults_are_the_dataclass_s_own() -> None:
    assert said("w") == repr((Recipe(), Where(), "w"))


def test_every_field_is_a_flag_of_its_type() -> None:
    args = (
        "w --max-steps 3 --learning-rate 0.5 --name n --no-shuffle --style bold --other b --limit 4 --out x/y --port 1"
    )
    expected = Recipe(3, 0.5, "n", False, "bold", "b", 4, Path("x/y"))
    assert said(*args.split()) == repr((expected, Where(1), "w"))


@pytest.mark.parametrize("args", ["--max-steps many", "--style thin", "--other c", "--hidden 8", "--limit 1.5"])
def test_a_wrong_value_is_a_usage_error(args: str) -> None:
    assert CliRunner().invoke(command, ["w", *args.split()]).exit_code == 2


def test_help_shows_what_is_set_unless_told_otherwise() -> None:
    text = " ".join(said("--help").split())
    assert "Say what came." in text
    assert "--shuffle / --no-shuffle Mix the rows. [default: shuffle]" in text
    assert "--max-steps INTEGER Steps to take. [default: 100]" in text
    assert "[plain|bold]" in text
    assert "--name TEXT A name. --" in text  # an empty default is not shown


@dataclass(frozen=True)
class Noted:
    limit: int | None = flag(7, "A limit, or none.")
    style: Literal["plain", "bold"] | None = flag("bold", "A style, or none.")
    rate: float = flag(1.0, "A rate.")
    sources: dict[str, str] = sources()


@click.command()
@flags(Noted)
def noted(noted: Noted) -> None:
    click.echo(repr(noted))


def test_what_may_be_none_takes_the_word() -> None:
    result = CliRunner().invoke(noted, ["--limit", "none", "--style", "NONE"])
    assert result.output.startswith("Noted(limit=None, style=None, rate=1.0,")
    assert CliRunner().invoke(noted, ["--rate", "none"]).exit_code == 2
    text = CliRunner().invoke(noted, ["--help"]).output
    assert "--limit [INTEGER|none]" in text
    assert "--style [plain|bold|none]" in text


def test_a_class_that_asks_for_it_is_told_where_each_value_came_from() -> None:
    result = CliRunner().invoke(noted, ["--limit", "3"])
    assert "sources={'limit': 'flag', 'style': 'default', 'rate': 'default'}" in result.output
    assert Noted(3) == Noted(3, sources={"limit": "flag"})  # not part of what a setting is


@dataclass(frozen=True)
class Far:
    solver_url: str = flag("", "A server.")


@click.command()
@flags(Far)
def far(far: Far) -> None:
    click.echo(repr(far.solver_url))


def test_an_empty_address_is_refused_and_white_space_around_one_is_nobody_s() -> None:
    assert CliRunner().invoke(far, ["--solver-url", " http://here/v1 "]).output == "'http://here/v1'\n"
    assert CliRunner().invoke(far, []).output == "''\n"
    refused = CliRunner().invoke(far, ["--solver-url", " "]).exception
    assert str(refused) == "--solver-url: empty; give a value, or leave it out"
