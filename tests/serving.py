"""An endpoint: in a thread of the test, with a scripted decomposer; or a program of its own, with a real one."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from openai import OpenAI

from edgedc.backends.greedy import one_by_one
from edgedc.decomposer import Decomposer
from edgedc.generation import Generation, Message
from edgedc.prices import Price
from edgedc.server.app import make_app
from edgedc.server.metrics import Metrics
from edgedc.server.run import Server, listen, url_of
from edgedc.server.service import Remote, Service
from edgedc.server.together import together
from edgedc.server.work import Workers
from edgedc.usage import Usage

LIST = "1. How many legs do the cats have?\n2. How many legs do the birds have?\n3. What is #1 plus #2?"
CLIENT_KEY = "planted-client-key-3"
PRICE = Price("m", input=1e-6, output=1e-5, cached=1e-7, date="2026-08", source="test")


@dataclass
class Says:
    """A local decomposer that says the same to everybody, a word at a time."""

    text: str = LIST
    word_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    heard: int = 0  # words
    at_work: int = 0
    most_at_work: int = 0

    def generate(
        self, messages: Sequence[Message], *, max_tokens: int, on_text: Callable[[str], None] | None = None
    ) -> Generation:
        self.asked.append(messages[-1]["content"])
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        words = [word + " " for word in self.text.split(" ")]
        words[-1] = words[-1][:-1]
        kept = words[:max_tokens]
        try:
            for word in kept:
                time.sleep(self.word_s)
                self.heard += 1
                if on_text:
                    on_text(word)
        finally:
            self.at_work -= 1
        reason = "stop" if kept == words else "length"
        return Generation("".join(kept), Usage(5, len(kept)), 0.0, 0.0, reason)


@dataclass
class Running:
    url: str
    server: Server
    lines: list[str]

    def client(self, **settings: object) -> OpenAI:
        return OpenAI(base_url=self.url, **{"api_key": CLIENT_KEY, "max_retries": 0, "timeout": 20, **settings})


@contextmanager
def endpoint(
    solver: Remote | None = None,
    says: Says | None = None,
    *,
    price: Price | None = None,
    parallel: int = 16,
    queue: int = 64,
    key: str | None = None,
    max_body: int = 10_000,
    patience_s: float = 20.0,
    booked: Callable[[], float | None] | None = None,
) -> Iterator[Running]:
    """It ends as SIGTERM ends it: what is begun is finished."""
    says = says or Says()
    lines: list[str] = []
    workers, metrics = Workers(parallel, queue), Metrics()
    metrics.watch(workers, booked or (lambda: None))
    with listen("127.0.0.1", 0) as listener, together(partial(one_by_one, says.generate)) as generate:
        decomposer = Decomposer("scripted", "local", generate, "compact-1")
        service = Service(decomposer, solver, max_tokens=100, price=price, metrics=metrics)
        app = make_app(service, workers, metrics=metrics, key=key, max_body=max_body, on_request=lines.append)
        server = Server(app, workers, on_stop=lines.append, patience_s=patience_s)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Running(url_of(listener), server, lines)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


class Program:
    """A running `edgedc serve`; `lines` is what it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.lines = process, []
        self._serving = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._serving.wait(60)
        found = re.search(r"serving at (http://\S+/v1)", "".join(self.lines))
        assert found, self.lines
        self.url = found[1]

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)
            if line.startswith("serving at"):
                self._serving.set()
        self._serving.set()

    def unread(self) -> None:
        """Nobody reads what it prints any more: all but the next line break its pipe."""
        assert self.process.stderr
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), self.process.stderr.fileno())

    def end(self, *signals: int, within: float = 20) -> int:
        """The exit code after these signals."""
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.5)
        code = self.process.wait(within)
        self._reader.join(5)
        return code

    def client(self, key: str = CLIENT_KEY) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=60)


@contextmanager
def serve(folder: Path, home: Path, *args: object, **environment: str) -> Iterator[Program]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("EDGEDC_", "OPENAI_"))}
    command = [sys.executable, "-m", "edgedc", "serve", "--port", "0", "--model", folder, "--threads", 1, *args]
    with subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env=clean | {"EDGEDC_HOME": str(home / "edgedc")} | environment,
    ) as process:
        try:
            yield Program(process)
        finally:
            process.kill()
