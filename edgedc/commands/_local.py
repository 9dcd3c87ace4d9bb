"""What the verbs that run a local decomposer share: its flags, opening it, and the row of one question."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from edgedc.backends import ENGINES, Choice, choose, open_choice
from edgedc.bundle import newest
from edgedc.decomposition import Decomposition, parse
from edgedc.files import Row, key_of
from edgedc.generation import Backend, Generation
from edgedc.methods import check_decomposes
from edgedc.pipeline import Decomposer, decompose, remark
from edgedc.prompts import MAX_TOKENS_DECOMPOSE

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Settings:
    """The flags of `model_options`."""

    model: Path | None = None
    backend: str = "auto"
    quantization: str | None = None
    threads: int | None = None
    max_subquestions: int | None = None
    max_tokens: int = MAX_TOKENS_DECOMPOSE


@dataclass(frozen=True)
class Local:
    """A decomposer that was chosen; `decomposer(...)` loads it. `key` covers all that shapes its replies."""

    choice: Choice
    settings: Settings
    cap: int | None

    @property
    def key(self) -> str:
        style = self.choice.manifest.prompt_style
        return key_of(self.choice.identity(), self.choice.engine, style, self.cap, self.settings.max_tokens)

    @contextmanager
    def decomposer(self) -> Iterator[Decomposer]:
        backend = open_choice(self.choice, threads=self.settings.threads)
        if self.choice.note:
            click.echo(f"{self.choice.note}: running {backend.name}", err=True)
        try:
            yield self._around(backend)
        finally:
            backend.close()

    def _around(self, backend: Backend) -> Decomposer:
        style = self.choice.manifest.prompt_style
        return Decomposer(backend.name, "local", backend.generate, style, self.cap, self.settings.max_tokens)

    def row(self, decomposer: Decomposer, question: str, premise: str) -> Row:
        """One question's result, as --json and the JSONL output have it."""
        decomposition, generation = decompose(decomposer, question, premise)
        return {"question": question, **described(self, decomposer, decomposition, generation)}


def described(local: Local, decomposer: Decomposer, decomposition: Decomposition, generation: Generation) -> Row:
    return {
        "status": decomposition.status,
        "subquestions": [{"text": s.text, "needs": list(s.needs)} for s in decomposition.subquestions],
        "raw": generation.text,
        "over_cap": decomposition.exceeds(decomposer.cap),
        "note": remark(decomposer, decomposition, generation),
        "finish_reason": generation.finish_reason,
        "prompt_tokens": generation.usage.input_tokens,
        "cached_tokens": generation.usage.cached_tokens,
        "output_tokens": generation.usage.output_tokens,
        "first_token_s": generation.first_token_s,
        "total_s": generation.total_s,
        "model": local.choice.manifest.name,
        "backend": decomposer.name,
    }


def decomposition_in(row: Row) -> Decomposition:
    """The decomposition of a row that `Local.row` made."""
    if row["status"] == "unparsed":
        return Decomposition((), "unparsed", row["raw"])
    return parse(row["raw"])


def model_options(command: Command) -> Command:
    """--model, --backend, --quantization, --threads, --max-subquestions and --max-tokens, passed as in Settings."""
    for option in reversed(
        (
            click.option(
                "--model",
                type=click.Path(path_type=Path),
                help="A bundle, or a model folder.  [default: the newest bundle here]",
            ),
            click.option(
                "--backend",
                type=click.Choice(["auto", *ENGINES]),
                default="auto",
                show_default=True,
                help="auto: the bundle's smallest artifact that can run here.",
            ),
            click.option("--quantization", help="Only this artifact of a bundle: f16, q8_0, fp32, ..."),
            click.option("--threads", type=click.IntRange(min=1), help="[default: the physical cores]"),
            click.option(
                "--max-subquestions",
                type=click.IntRange(min=1),
                help="Ask for at most this many.  [default: what the model was trained with]",
            ),
            click.option(
                "--max-tokens",
                type=click.IntRange(min=1),
                default=MAX_TOKENS_DECOMPOSE,
                show_default=True,
                help="Longest reply; a longer one counts as unparsed.",
            ),
        )
    ):
        command = option(command)
    return command


def choose_local(settings: Settings) -> Local:
    """Find the model, the newest bundle below the working folder if none is named, and say which on stderr.

    Raises InputError when there is none that can run here, and for one that was trained to answer.
    """
    path = settings.model
    if path is None:
        path = newest("bundle", Path.cwd())
        click.echo(f"model: {path}", err=True)
    engine = next((e for e in ENGINES if e == settings.backend), None)
    choice = choose(path, engine=engine, quantization=settings.quantization)
    check_decomposes(path, choice.manifest.method)
    cap = settings.max_subquestions
    return Local(choice, settings, choice.manifest.max_subquestions if cap is None else cap)
