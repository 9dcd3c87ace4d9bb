"""Who can be asked to teach: a model behind an OpenAI-compatible server, or one on this machine."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgedc.backends import choose, open_choice
from edgedc.bundle import MANIFEST
from edgedc.catalogue import find_model
from edgedc.errors import EdgedcError, InputError
from edgedc.files import Row, sha256_of
from edgedc.generation import Backend
from edgedc.methods import check_decomposes
from edgedc.prices import Price
from edgedc.solvers.openai import OPENAI, host_of

from ..calls.remote import Remote, find_remote
from .draws import Draw, Form, row_of

if TYPE_CHECKING:
    from .teach import TeachSettings

HERE = "this machine"
FLAGS = ("--teacher", "--teacher-url")


class Teacher(Protocol):
    """A Job of train/calls/engines.py. `identity` is what of it determines a reply, `name` what its rows call it, and
    `where` a host or this machine."""

    @property
    def where(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> tuple[str, ...]: ...
    @property
    def form(self) -> Form: ...
    @property
    def price(self) -> Price | None: ...

    def open(self, share: float) -> AbstractContextManager[Callable[[Draw], Row]]: ...

    def worst(self, draw: Draw) -> float:
        """The most that the draw can cost, retries included, in US dollars; 0 where no price is known or asked."""


@dataclass(frozen=True)
class GoldTeacher:
    """The task's own decompositions."""

    name: str = "gold"
    identity: tuple[str, ...] = ("gold",)
    form: Form = Form()
    price: None = None
    where: str = HERE

    def worst(self, draw: Draw) -> float:  # noqa: ARG002
        return 0.0

    @contextmanager
    def open(self, share: float) -> Iterator[Callable[[Draw], Row]]:  # noqa: ARG002
        def copy(draw: Draw) -> Row:
            assert draw.example.decomposition is not None  # teach has looked
            return row_of(draw, self.form, self.name, draw.example.decomposition, cost=0.0)

        yield copy


@dataclass(frozen=True)
class RemoteTeacher:
    """A model behind an OpenAI-compatible server."""

    server: Remote
    form: Form

    @property
    def where(self) -> str:
        return self.server.host

    @property
    def name(self) -> str:
        return self.server.name

    @property
    def identity(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def price(self) -> Price | None:
        return self.server.price

    def worst(self, draw: Draw) -> float:
        return self.server.worst(draw.messages)

    @contextmanager
    def open(self, share: float) -> Iterator[Callable[[Draw], Row]]:
        with self.server.open(share) as solver:

            def ask(draw: Draw) -> Row:
                made = solver.solve(draw.messages, max_tokens=self.server.max_tokens, seed=draw.seed)
                return row_of(draw, self.form, self.name, made, simulated=solver.simulated)

            yield ask


@dataclass(frozen=True)
class LocalTeacher:
    """A bundle, a model folder or a GGUF file on this machine. It is asked one question at a time, and decodes
    greedily."""

    path: Path
    name: str
    identity: tuple[str, ...]
    form: Form
    price: None = None
    where: str = HERE

    def worst(self, draw: Draw) -> float:  # noqa: ARG002
        return 0.0

    @contextmanager
    def open(self, share: float) -> Iterator[Callable[[Draw], Row]]:  # noqa: ARG002
        backend = _open_local(self.path)
        lock, over = threading.Lock(), threading.Event()

        def go_on(_: str = "") -> None:
            if over.is_set():
                raise EdgedcError("nobody waits for this reply any more")

        def ask(draw: Draw) -> Row:
            assert self.form.max_tokens is not None
            with lock:
                go_on()
                made = backend.generate(draw.messages, max_tokens=self.form.max_tokens, on_text=go_on)
            return row_of(draw, self.form, self.name, made, cost=0.0)

        try:
            yield ask
        finally:
            over.set()
            with lock:  # after Ctrl-C a reply may be under way, and its model must not be freed beneath it
                backend.close()


def find_teacher(settings: "TeachSettings") -> Teacher:
    """Who is to teach. Nothing is loaded, and nobody asked.

    Raises InputError for a model or a price that is not known, a missing key, and for what a teacher cannot do.
    """
    gold = settings.teacher == "gold"
    local = None if gold or settings.teacher_url else _on_this_machine(settings.teacher)
    if (gold or local) and (settings.draws > 1 or settings.temperature > 0):
        who = "the task's own decompositions" if gold else f"{settings.teacher}: a model on this machine, whose replies"
        raise InputError(f"{who} are always the same: leave --draws and --temperature out")
    if gold:
        if settings.teacher_url:
            raise InputError("--teacher-url needs --teacher, the name of the model there")
        return GoldTeacher()
    form = Form("instruct-1", settings.max_subquestions, settings.shots, settings.temperature, settings.max_tokens)
    if local:
        return _find_local(local, form)
    server = find_remote(
        settings.teacher, settings.teacher_url, settings.temperature, settings.max_tokens, settings, FLAGS
    )
    if server.price is None and server.host == host_of(OPENAI) and not settings.teacher_url:
        raise InputError(
            f"{settings.teacher}: no model here (edgedc models), and none of {server.host} whose price is known; for a "
            "server that has it add --teacher-url"
        )
    return RemoteTeacher(server, form)


def _on_this_machine(name: str) -> Path | None:
    """Where the model is, by its path or as `find_model` knows it; None for a name that only a server can know.

    Raises InputError for what can only be a path, or begins in a folder that is here, where nothing is: a path that was
    mistyped is no question for a server, to be sent with a key.
    """
    path = find_model(Path(name))
    if path.exists():
        return path
    in_folder = len(path.parts) > 1 and path.parent.is_dir()
    if name.startswith((".", "/", "~")) or name.endswith(("/", ".gguf")) or in_folder:
        raise InputError(
            f"{name}: no such file or folder, and no name in  edgedc models; for a model of that name at a server add "
            "--teacher-url"
        )
    return None


def _find_local(path: Path, form: Form) -> LocalTeacher:
    """Raises InputError for what is no model. Hashes its weights."""
    if _is_gguf(path):
        return LocalTeacher(path, path.name, (sha256_of(path),), form)
    choice = choose(path)
    check_decomposes(path, choice.manifest.method)
    style, name = choice.manifest.prompt_style, choice.manifest.name
    if form.shots and style != "instruct-1":
        raise InputError(f"{path}: trained on prompts without examples: leave --shots out")
    if choice.artifact:
        name += f" {choice.artifact.quantization}"
    return LocalTeacher(path, name, (*choice.identity(), choice.engine), replace(form, style=style))


def _is_gguf(path: Path) -> bool:
    """A GGUF file by itself; one of a bundle goes by the bundle, which knows how it is to be asked."""
    return path.is_file() and path.suffix == ".gguf" and not (path.parent / MANIFEST).is_file()


def _open_local(path: Path) -> Backend:
    if _is_gguf(path):
        from edgedc.backends.llamacpp import LlamaCppBackend

        return LlamaCppBackend(path)
    return open_choice(choose(path))
