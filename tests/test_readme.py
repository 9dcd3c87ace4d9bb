"""The commands in the documents are commands that exist, with flags that exist, and the verbs' list is the real one."""

import re
import shlex
from pathlib import Path

import click
import pytest

from edgedc.cli import VERBS, cli
from edgedc.recipes import known_recipes

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8") + (ROOT / "benchmarks" / "README.md").read_text("utf-8")
BLOCKS = "\n".join(re.findall(r"```(?:sh)?\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")
COMMANDS = re.findall(r"^\$? ?edgedc (\w+)[ \t]*([^#\n]*)", BLOCKS, re.MULTILINE)
TARGETS = set(re.findall(r"\bmake ([a-z][a-z-]+)", BLOCKS + " ".join(re.findall(r"`([^`\n]*)`", TEXT))))


def test_the_readme_shows_commands():
    assert {"teach", "train", "merge", "export", "decompose", "ask"} <= {verb for verb, _ in COMMANDS}


@pytest.mark.parametrize(("verb", "args"), COMMANDS, ids=[f"{verb} {args}".strip() for verb, args in COMMANDS])
def test_every_command_parses(verb, args):
    """Click reads the whole line, and would complain of an unknown flag, choice or argument; nothing is run."""
    command = cli.get_command(click.Context(cli), verb)
    command.make_context(verb, shlex.split(args))


def test_every_recipe_exists():
    """`--recipe` is read when the line is parsed; what `edgedc distill` names is not."""
    named = [shlex.split(args)[0] for verb, args in COMMANDS if verb == "distill"]
    assert [name for name in named if not name.endswith(".toml") and name not in known_recipes()] == []


def test_every_make_target_exists():
    defined = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= TARGETS <= defined


def test_every_verb_is_in_the_readme():
    assert set(VERBS) <= set(re.findall(r"\w+", TEXT))


def test_the_tree_in_contributing_is_the_tree():
    tree = re.search(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)[1]
    for line in tree.splitlines():
        path = line.split()[0]
        assert (ROOT / path).exists(), path
    modules = {path.name for path in (ROOT / "edgedc").glob("[!_]*.py")}
    assert modules <= set(re.findall(r"\w+\.py", tree))
