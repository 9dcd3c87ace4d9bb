"""A chat completion server on this machine that goes wrong in the ways that servers do, and keeps its own count.

    with faulty("500", "stall") as server:   # the first request fails, the second stalls, all others are answered
        ... server.url, server.requests, server.billed

A request to decompose is answered with TWO, every other one with ANSWER. The server bills what it has said it used, and
for a reply that broke off what it had written by then.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from typing import Any

TWO = "1. How many eggs are laid?\n2. How many eggs are eaten?\n3. What is #1 minus #2?"
ANSWER = "The answer is: 7"


@dataclass
class Request:
    """What came, and what became of it. `body` is the raw one; `billed` holds prompt and completion tokens."""

    path: str
    headers: dict[str, str]
    body: bytes
    fault: str
    billed: tuple[int, int] = (0, 0)
    answered: bool = False

    @property
    def chat(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass
class Faulty:
    url: str
    requests: list[Request] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def billed(self) -> tuple[int, int]:
        """Prompt and completion tokens of all requests."""
        return sum(r.billed[0] for r in self.requests), sum(r.billed[1] for r in self.requests)

    @property
    def answered(self) -> tuple[int, int]:
        """Those of the requests that were answered in full."""
        whole = [r.billed for r in self.requests if r.answered]
        return sum(read for read, _ in whole), sum(written for _, written in whole)

    @property
    def bytes_received(self) -> int:
        return sum(len(request.body) for request in self.requests)


@contextmanager
def faulty(*faults: str, ever: str = "good") -> Iterator[Faulty]:
    """`faults` of the first requests, in the order in which they come; all others meet `ever`."""
    plan, lock = chain(faults, repeat(ever)), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                request = Request(self.path, dict(self.headers), body, next(plan))
                made.requests.append(request)
            self.close_connection = True
            with suppress(OSError):  # the client has gone
                FAULTS[request.fault](Wire(self.connection, request, made))

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, request: Any, client_address: Any) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    made = Faulty(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Wire:
    """One connection, and what a fault does on it."""

    def __init__(self, connection: socket.socket, request: Request, server: Faulty) -> None:
        self.connection, self.request, self.server = connection, request, server
        self.prompt = "".join(message["content"] for message in request.chat["messages"])
        decomposes = self.prompt.startswith(("Break down", "Your task is to break down"))
        self.text = TWO if decomposes else ANSWER
        self.pieces = [word + " " for word in self.text.split(" ")[:-1]] + [self.text.split(" ")[-1]]
        self.usage = {"prompt_tokens": len(self.prompt.split()), "completion_tokens": len(self.pieces)}

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def head(self, status: str, kind: str, *more: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *more, "", ""]
        self.send("\r\n".join(lines).encode())

    def json(self, status: str, value: object, *more: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.head(status, "application/json", f"Content-Length: {len(body)}", *more)
        self.send(body)

    def error(self, status: str, message: str, *more: str) -> None:
        self.json(status, {"error": {"message": message}}, *more)

    def stream(self) -> None:
        self.head("200 OK", "text/event-stream")

    def event(self, value: object) -> None:
        self.send(b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n")

    def delta(self, finish: str | None = None, **parts: object) -> None:
        self.event({"choices": [{"index": 0, "delta": parts, "finish_reason": finish}]})

    def say(self, count: int | None = None) -> None:
        """Some of the reply's pieces, which are billed from then on; None: all, and the end of the reply."""
        self.stream()
        for written, piece in enumerate(self.pieces[:count], start=1):
            self.bill(written)
            self.delta(content=piece)
        if count is None:
            self.delta("stop")
            self.request.answered = True

    def bill(self, written: int) -> None:
        self.request.billed = (self.usage["prompt_tokens"], written)

    def count(self, **more: object) -> None:
        self.event({"choices": [], "usage": self.usage | more})

    def reset(self) -> None:
        """An RST, as when a cable is pulled and a router answers."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def hang(self) -> None:
        """Until the client hangs up, or the server is closed."""
        self.connection.settimeout(0.05)
        while not self.server.over.is_set():
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue

    def drip(self, data: bytes) -> None:
        while not self.server.over.is_set():
            self.send(data)
            time.sleep(0.05)


def _good(wire: Wire) -> None:
    wire.say()
    wire.count()
    wire.event(b"[DONE]")


def _whole(wire: Wire) -> None:
    wire.bill(len(wire.pieces))
    wire.request.answered = True
    choice = {"message": {"role": "assistant", "content": wire.text}, "finish_reason": "stop"}
    wire.json("200 OK", {"choices": [choice], "usage": wire.usage})


def _unmetered(wire: Wire) -> None:
    wire.say()
    wire.event(b"[DONE]")


def _reasoning(wire: Wire) -> None:
    """A server that leaves reasoning out of the completion's tokens, and has it in the total."""
    wire.stream()
    wire.delta(reasoning="Let me see. ")
    for piece in wire.pieces:
        wire.delta(content=piece)
    wire.delta("stop")
    wire.request.answered = True
    wire.bill(len(wire.pieces) + 40)
    total = sum(wire.usage.values()) + 40
    wire.count(total_tokens=total, completion_tokens_details={"reasoning_tokens": 40})
    wire.event(b"[DONE]")


def _late_reset(wire: Wire) -> None:
    wire.say()
    time.sleep(0.05)  # what was sent must have come before an RST takes it back
    wire.reset()


def _no_end(wire: Wire) -> None:
    wire.say()
    wire.hang()


def _late_garbage(wire: Wire) -> None:
    wire.say()
    wire.event(b'{"usage": {{{')


def _stall(wire: Wire) -> None:
    wire.say(2)
    wire.hang()


def _reset_midway(wire: Wire) -> None:
    wire.say(2)
    time.sleep(0.05)
    wire.reset()


def _garbage(wire: Wire) -> None:
    wire.say(1)
    wire.event(b'{"choices": [{"delta": {"content": "x')


def _loris(wire: Wire) -> None:
    """The head of a reply, a byte at a time, and never whole."""
    wire.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    wire.drip(b"x")


def _html(wire: Wire) -> None:
    wire.head("200 OK", "text/html")
    wire.send(b"<html>Log in</html>")


def _drip(wire: Wire) -> None:
    wire.stream()
    wire.drip(b": still here\n\n")


def _endless(wire: Wire) -> None:
    wire.stream()
    event = b"data: " + json.dumps({"choices": [{"delta": {"content": "and " * 5000}}]}).encode() + b"\n\n"
    while not wire.server.over.is_set():
        wire.send(event)


def _echo(wire: Wire) -> None:
    wire.error("500 Oops", f"your header was {wire.request.headers.get('Authorization')}", "Retry-After: 0")


def _echo_text(wire: Wire) -> None:
    """The key in the reply, a character at a time."""
    wire.stream()
    for character in f"It is {wire.request.headers.get('Authorization', '').removeprefix('Bearer ')}. ":
        wire.delta(content=character)
    wire.delta("stop", content=ANSWER)
    wire.bill(len(wire.pieces))
    wire.request.answered = True
    wire.count()
    wire.event(b"[DONE]")


FAULTS: dict[str, Callable[[Wire], None]] = {
    "good": _good,
    "whole": _whole,
    "unmetered": _unmetered,
    "reasoning": _reasoning,
    # the answer is there before it goes wrong
    "late-reset": _late_reset,
    "no-end": _no_end,
    "late-garbage": _late_garbage,
    # it passes
    "429": lambda wire: wire.error("429 Too Many Requests", "slow down"),
    "429-now": lambda wire: wire.error("429 Too Many Requests", "slow down", "Retry-After: 0"),
    "429-later": lambda wire: wire.error("429 Too Many Requests", "come back tomorrow", "Retry-After: 86400"),
    "500": lambda wire: wire.error("500 Internal Server Error", "oops", "Retry-After: 0"),
    "503": lambda wire: wire.error("503 Service Unavailable", "busy", "Retry-After: 0"),
    "stall": _stall,
    "silence": lambda wire: wire.hang(),
    "reset": lambda wire: wire.reset(),
    "reset-midway": _reset_midway,
    # it is not the protocol
    "garbage": _garbage,
    "wrong-json": lambda wire: wire.json("200 OK", {"answer": 7}),
    "cut-json": lambda wire: wire.json("200 OK", b'{"choices": [{"mess'),
    "html": _html,
    # it does not end
    "loris": _loris,
    "drip": _drip,
    "endless": _endless,
    # it gives the key away
    "echo": _echo,
    "echo-text": _echo_text,
    # no later call mends it
    "401": lambda wire: wire.error("401 Unauthorized", f"bad key {wire.request.headers.get('Authorization')}"),
    "404": lambda wire: wire.error("404 Not Found", "no such model"),
}
