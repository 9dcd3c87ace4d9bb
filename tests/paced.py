"""A server that replies at a known pace, and a bench of it."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from edgedc.bench.metrics import Record, record_from
from edgedc.bench.pair import Provider, Results, run_bench
from edgedc.bench.systems import System
from edgedc.files import read_rows
from edgedc.prices import Price
from edgedc.solvers.openai import OpenAISolver
from edgedc.tasks import Example

PRICE = Price("m", input=1e-6, output=2e-6, cached=0.5e-6, date="2026-01-02", source="a test")
COT = System("cot", "cot")
SLACK = 0.12  # seconds by which a busy machine may be late, per reply


@dataclass(frozen=True)
class Plan:
    """A reply: pieces of text with the seconds before each, and what the server says it counted."""

    pieces: Sequence[tuple[float, str]]
    usage: dict[str, object] | None = None


@dataclass
class Served:
    url: str
    asked: list[dict[str, str]] = field(default_factory=list)  # headers


@contextmanager
def server(plan: Callable[[int], Plan], *, tls: tuple[Path, str] | None = None) -> Iterator[Served]:
    """Replies to the k-th request, from 0, by `plan(k)`. `tls`: a file with key and certificate, and its host."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def log_message(self, format: str, *args: object) -> None: ...

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                reply = plan(len(made.asked))
                made.asked.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for seconds, text in reply.pieces:
                time.sleep(seconds)
                self.event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
            self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            if reply.usage:
                self.event({"choices": [], "usage": reply.usage})
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")

        def event(self, value: object) -> None:
            self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

        def chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    host = tls[1] if tls else "127.0.0.1"
    http = ThreadingHTTPServer((host, 0), Handler)
    http.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls[0])
        http.socket = context.wrap_socket(http.socket, server_side=True)
    made = Served(f"http{'s' if tls else ''}://{host}:{http.server_port}/v1")
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def usage(read: int, written: int, *, cached: int = 0, thought: int = 0) -> dict[str, object]:
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def say(first: float, *gaps: float, written: int = 4) -> Plan:
    return Plan([(first, "The answer is: 1"), *((gap, " ") for gap in gaps)], usage(100, written))


def questions(count: int) -> list[Example]:
    return [Example(str(k), f"Question {k}?", answer="1") for k in range(count)]


def bench(folder: Path, url: str, count: int, *systems: System, via: str | None = None, **given: object) -> Results:
    with closing(OpenAISolver("m", url, retries=0, via=via)) as solver:
        return run_bench(
            systems or [COT],
            questions(count),
            provider=Provider(solver, PRICE, "http://solver.test/v1"),
            score=lambda text, example: text.strip().endswith(example.answer),
            output=folder / "bench.json",
            **given,
        )


def records(folder: Path) -> list[Record]:
    return [record_from(row) for row in read_rows(folder / "bench.rows.jsonl")]
