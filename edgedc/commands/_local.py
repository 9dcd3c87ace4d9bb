"""What the verbs that run a local decomposer share: its flags, opening it, and the row of one question."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from edgedc.backends import ENGINES, Choice, ModelBackend, choose, open_choice
from edgedc.backends.grammar import ListGrammar
from edgedc.bundle import newest
from edgedc.catalogue import BOX, find_model
from edgedc.decomposer import Decomposer, decompose, read_reply, remark
from edgedc.errors import EdgedcError, InputError
from edgedc.files import Row, key_of, sha256_of
from edgedc.generation import Generation, Message, OnText, Request
from edgedc.machine import MAX_THREADS
from edgedc.methods import check_decomposes
from edgedc.prompts import MAX_TOKENS_DECOMPOSE

AUTO = "auto: the bundle's artifact that is fastest on this CPU, measured once. llamacpp-gpu: all of it on the GPU."

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Settings:
    """The flags of `model_options`."""

    model: Path | None = None
    backend: str = "auto"
    quantization: str | None = None
    adapter: Path | None = None
    threads: int | None = None
    max_subquestions: int | None = None
    max_tokens: int = MAX_TOKENS_DECOMPOSE
    grammar: bool = True


@dataclass(frozen=True, kw_only=True)
class LocalDecomposer(Decomposer):
    """A decomposer on this device. It takes many questions at once, too."""

    backend: ModelBackend
    grammar: ListGrammar | None

    def generate_many(self, requests: Iterable[Sequence[Message]]) -> Iterator[Generation | EdgedcError]:
        """See ModelBackend."""
        return self.backend.generate_many(requests, max_tokens=self.max_tokens, grammar=self.grammar)

    def generate_as_they_come(
        self, requests: Iterable[Request | None]
    ) -> Iterator[tuple[int, Generation | EdgedcError]]:
        """See ModelBackend."""
        return self.backend.generate_as_they_come(requests, grammar=self.grammar)


@dataclass(frozen=True)
class Local:
    """A decomposer that was chosen; `decomposer(...)` loads it. `key` covers all that shapes its replies."""

    choice: Choice
    settings: Settings
    cap: int | None

    @property
    def key(self) -> str:
        style, settings = self.choice.manifest.prompt_style, self.settings
        weights = [*self.choice.identity(), *([sha256_of(settings.adapter)] if settings.adapter else [])]
        return key_of(weights, self.choice.engine, style, self.cap, settings.max_tokens, settings.grammar)

    @contextmanager
    def decomposer(self) -> Iterator[LocalDecomposer]:
        backend = open_choice(self.choice, threads=self.settings.threads, adapter=self.settings.adapter)
        if self.choice.note:
            click.echo(f"{self.choice.note}: running {backend.name}", err=True)
        try:
            yield self._around(backend)
        finally:
            backend.close()

    def _around(self, backend: ModelBackend) -> LocalDecomposer:
        grammar = ListGrammar(self.cap) if self.settings.grammar else None
        return LocalDecomposer(
            name=backend.name,
            where="local",
            generate=partial(backend.generate, grammar=grammar),
            style=self.choice.manifest.prompt_style,
            cap=self.cap,
            max_tokens=self.settings.max_tokens,
            backend=backend,
            grammar=grammar,
        )

    def row(self, decomposer: Decomposer, question: str, premise: str, on_text: OnText | None = None) -> Row:
        """One question's result, as --json has it. `on_text` hears the reply as it comes."""
        _, generation = decompose(decomposer, question, premise, on_text=on_text)
        return self.row_of(decomposer, question, generation)

    def row_of(self, decomposer: Decomposer, question: str, generation: Generation) -> Row:
        """The result of a question whose reply is there, as --json and the JSONL output have it."""
        decomposition = read_reply(generation)
        return {
            "question": question,
            "status": decomposition.status,
            "subquestions": [{"text": s.text, "needs": list(s.needs)} for s in decomposition.subquestions],
            "raw": generation.text,
            "over_cap": decomposition.exceeds(decomposer.cap),
            "constrained": generation.constrained,
            "note": remark(decomposer, decomposition, generation),
            "finish_reason": generation.finish_reason,
            "prompt_tokens": generation.usage.input_tokens,
            "cached_tokens": generation.usage.cached_tokens,
            "output_tokens": generation.usage.output_tokens,
            "first_token_s": generation.first_token_s,
            "total_s": generation.total_s,
            "model": self.choice.manifest.name,
            "backend": decomposer.name,
        }


def model_options(command: Command) -> Command:
    """The flags of Settings, passed under their names."""
    for option in reversed(
        (
            click.option(
                "--model",
                type=click.Path(path_type=Path),
                help="A bundle, a model folder, or a name in  edgedc models.  "
                "[default: the newest bundle here, else the model named default]",
            ),
            click.option(
                "--backend",
                type=click.Choice(["auto", *ENGINES]),
                default="auto",
                show_default=True,
                help=AUTO,
            ),
            click.option("--quantization", help="Only this artifact of a bundle: f16, q8_0, fp32, ..."),
            click.option(
                "--adapter",
                type=click.Path(path_type=Path, exists=True, dir_okay=False),
                help="A LoRA on top, for llama.cpp: what  edgedc export --adapter-only  wrote.",
            ),
            click.option("--threads", type=click.IntRange(1, MAX_THREADS), help="[default: the free cores]"),
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
            click.option(
                "--grammar/--no-grammar",
                default=True,
                show_default=True,
                help='Admit only a list of at most --max-subquestions, none of them twice, or "No decomposition".',
            ),
        )
    ):
        command = option(command)
    return command


def default_model() -> Path:
    """The newest bundle below the working folder, else the model named default; said on stderr."""
    try:
        path = newest("bundle", Path.cwd())
        click.echo(f"model: {path}", err=True)
    except InputError:
        path = find_model(Path(BOX))
        if not path.is_dir():
            raise
        click.echo(f"model: {BOX}, a small one; --model takes your own", err=True)
    return path


def choose_local(settings: Settings) -> Local:
    """Find the model. Raises InputError when nothing of it can run here, and for one that was trained to answer."""
    path = find_model(settings.model) if settings.model else default_model()
    engine = next((e for e in ENGINES if e == settings.backend), "llamacpp" if settings.adapter else None)
    choice = choose(path, engine=engine, quantization=settings.quantization, threads=settings.threads, measure=True)
    if choice.measured:
        click.echo(choice.measured, err=True)
    check_decomposes(path, choice.manifest.method)
    cap = settings.max_subquestions
    return Local(choice, settings, choice.manifest.max_subquestions if cap is None else cap)
