"""A server that says exactly what it is told, byte by byte, and a solver that asks it."""

import itertools
import json
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from edgedc.errors import SolverError
from edgedc.prices import Price
from edgedc.solvers.openai import OpenAISolver
from edgedc.usage import Usage

KEY = "sk-very-secret-0123456789"
ASKED = [{"role": "user", "content": "How many?"}]
PRICE = Price("m", input=1e-6, output=1e-5, cached=1e-7, date="2026-08", source="test")
WORST = PRICE.cost(Usage(256 + 16 + len("How many?"), 10))  # of one attempt of ASKED

Act = bytes | Callable[[socket.socket], None]


def http(status: str, kind: str, body: bytes, *headers: str) -> bytes:
    head = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def error(status: str, message: str, *headers: str) -> bytes:
    return http(status, "application/json", json.dumps({"error": {"message": message}}).encode(), *headers)


def sse(*events: dict | str) -> bytes:
    lines = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events]
    return http("200 OK", "text/event-stream; charset=utf-8", "".join(lines).encode())


def delta(finish: str | None = None, **parts: object) -> dict:
    return {"choices": [{"index": 0, "delta": parts, "finish_reason": finish}]}


USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8}}
GOOD = sse(
    delta(content="The answer"), delta(content=" is: 7"), delta("stop"), {"choices": [], "usage": USAGE}, "[DONE]"
)


class Server:
    """Plays its acts in order, one per connection, and keeps the requests."""

    def __init__(self, acts: tuple[Act, ...]) -> None:
        self.acts = acts
        self.requests: list[tuple[str, dict]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.over = threading.Event()

    def play(self) -> None:
        for act in self.acts:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self._serve(connection, act)
                except ConnectionError:
                    continue  # the client hung up, as it should

    def _serve(self, connection: socket.socket, act: Act) -> None:
        with connection.makefile("rb") as file:
            head = b"".join(itertools.takewhile(lambda line: line != b"\r\n", file)).decode()
            if not head:  # the client has hung up
                return
            length = next(
                int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-le")
            )
            self.requests.append((head, json.loads(file.read(length))))
        if isinstance(act, bytes):
            connection.sendall(act)
        else:
            act(connection)


@contextmanager
def server(*acts: Act) -> Iterator[Server]:
    made = Server(acts)
    thread = threading.Thread(target=made.play, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.over.set()
        made.listener.shutdown(socket.SHUT_RDWR)
        made.listener.close()
        thread.join(5)


@contextmanager
def solver_at(url: str, **settings: object) -> Iterator[OpenAISolver]:
    solver = OpenAISolver("m", url, KEY, **{"timeout_s": 5.0, "retries": 0, **settings})
    try:
        yield solver
    finally:
        solver.close()


def failure(*acts: Act, kind: type[SolverError], **settings: object) -> str:
    """The one line of the error that the acts lead to; it must never hold the key."""
    with server(*acts) as made, solver_at(made.url, **settings) as solver:
        with pytest.raises(kind) as caught:
            solver.solve(ASKED, max_tokens=10)
        assert KEY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(solver)
        assert len(made.requests) == len(acts)
    message = str(caught.value)
    assert message.startswith("127.0.0.1:")
    assert "\n" not in message
    assert message.isprintable()
    return message
