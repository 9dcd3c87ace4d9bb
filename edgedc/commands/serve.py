"""edgedc serve: the pairing, or the decomposer alone, for any program that speaks OpenAI's protocol."""

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from edgedc.commands._desk import Desk
from edgedc.commands._local import Settings, choose_local, model_options
from edgedc.commands._paid import SERVER, Paying
from edgedc.errors import InputError, MissingExtra
from edgedc.files import read_text
from edgedc.flags import flag, flags
from edgedc.prompts import MAX_TOKENS_SOLVE

KEY = "EDGEDC_SERVE_KEY"


@dataclass(frozen=True)
class Serving:
    """Where and how much. Raises InputError for a limit that is none."""

    host: str = flag("127.0.0.1", "Address to listen on. Any but this machine's own loopback needs a key.")
    port: int = flag(8080, "Port; 0: a free one.")
    key_file: Path | None = flag(None, f"File with the key that clients must send as Bearer. [default: {KEY}]")
    parallel: int = flag(16, "Questions at work at the same time.")
    queue: int = flag(64, "Questions that may wait; further ones get 429 and Retry-After.")
    max_body: int = flag(1_000_000, "Largest request in bytes.")

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"--port {self.port}: give 0 to 65535")
        for name, least in (("parallel", 1), ("queue", 0), ("max_body", 1)):
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: give at least {least}")


@dataclass(frozen=True)
class Behind:
    """Who answers. Raises InputError for what contradicts."""

    solver_model: str = flag("", "The model that answers; without one the decomposer alone is served.")
    solver_url: str = flag("", SERVER)
    solver_max_tokens: int = flag(MAX_TOKENS_SOLVE, "Longest reply of the solver, where a request names no limit.")

    def __post_init__(self) -> None:
        if self.solver_url and not self.solver_model:
            raise InputError("--solver-url: name the model there with --solver-model")
        if self.solver_max_tokens < 1:
            raise InputError(f"--solver-max-tokens {self.solver_max_tokens}: give at least 1")


@click.command(short_help="An OpenAI-compatible endpoint: decompose here, solve there.")
@flags(Serving)
@flags(Behind)
@flags(Paying)
@model_options
def command(serving: Serving, behind: Behind, paying: Paying, **options: Any) -> None:
    """Serve OpenAI's chat protocol: decompose on this device, then ask a solver elsewhere.

    A client changes its base URL and nothing else; GET /v1/models lists what it may name as its model. Without
    --solver-model the decomposer alone is served. A request's last message is the question; what the user and the
    assistant said before is its context; the system's messages go to the solver. A client's own key stays here.

    SIGTERM or Ctrl-C ends it once all that was begun is finished; a second Ctrl-C ends it at once.
    """
    try:
        from edgedc.server.app import make_app
        from edgedc.server.guard import is_loopback
        from edgedc.server.metrics import Metrics
        from edgedc.server.run import Server, listen, serve, url_of
        from edgedc.server.service import Service
        from edgedc.server.together import together
        from edgedc.server.work import Workers
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "a package", "serve") from error
    key = _key(serving.key_file)
    if key is None and not is_loopback(serving.host):
        raise InputError(f"--host {serving.host} can be reached from elsewhere: set {KEY}, or give --key-file FILE")
    with ExitStack() as stack:
        listener = stack.enter_context(listen(serving.host, serving.port))
        desk = Desk(stack, paying)
        remote = desk.solver(behind.solver_model, behind.solver_url) if behind.solver_model else None
        local = choose_local(Settings(**options))
        decomposer = stack.enter_context(local.decomposer())
        generate = stack.enter_context(together(decomposer.generate_as_they_come))
        decomposer = replace(decomposer, generate=generate)
        workers, metrics = Workers(serving.parallel, serving.queue), Metrics()
        metrics.watch(workers, booked=lambda: desk.spent)
        solver, price = (remote.solver, remote.price) if remote else (None, None)
        service = Service(decomposer, solver, max_tokens=behind.solver_max_tokens, price=price, metrics=metrics)
        app = make_app(service, workers, metrics=metrics, key=key, max_body=serving.max_body, on_request=_say)
        _say(f"decomposer {local.choice.manifest.name} on {decomposer.name}")
        _say(f"solver {remote.name}" if remote else "no solver: the decomposer alone is served")
        _say(f"serving at {url_of(listener)}; Ctrl-C stops it")
        serve(Server(app, workers, on_stop=_say), listener)


def _key(file: Path | None) -> str | None:
    """What clients must send. Raises InputError for a key that no header can hold; it is never on a command line."""
    where, key = (str(file), read_text(file).strip()) if file else (KEY, os.environ.get(KEY, "").strip())
    if file is None and not key:
        return None
    if not (key and key.isascii() and key.isprintable() and " " not in key):
        raise InputError(f"{where}: holds no key, or one with white space or characters that no key has")
    return key


def _say(line: str) -> None:
    """To the log; questions are answered even where that has gone, or is full."""
    with suppress(OSError):
        click.echo(line, err=True)
