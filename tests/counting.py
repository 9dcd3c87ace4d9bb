"""A solver behind a real socket that counts what it is asked and what it bills, and that can be unplugged."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What a fault does to one request: "refuse" (400), "key" (401), "busy" (503), "cut" in the middle of the reply, "drop"
# before it, "stall" for a minute, "pause" in the
# middle of it until `resume` is set, "" nothing. It is given the prompt and the number of the request, from 1.
Fault = Callable[[str, int], str]

LIST = "1. How many eggs are laid?\n2. How many eggs are eaten?\n3. How much is #1 less #2?"


class Counting:
    """`billed` counts the whole replies by their prompts, and `begun` all that got as far as a first token."""

    def __init__(self) -> None:
        self.fault: Fault = lambda _prompt, _number: ""
        self.reply = reply_to
        self.billed, self.begun = Counter[str](), Counter[str]()
        self.asked = 0
        self.delay_s = 0.0
        self.resume = threading.Event()
        self.keys: set[str] = set()
        self.lock = threading.Lock()
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def plugged(self) -> bool:
        return self._server is not None

    def plug(self) -> None:
        """On the port that it had before."""
        made = type("Handler", (_Handler,), {"counting": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), made)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def unplug(self) -> None:
        """Nobody listens any more, and what was open breaks."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        with self.lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    @property
    def twice(self) -> list[str]:
        """Prompts that were billed more than once."""
        return [prompt for prompt, count in self.billed.items() if count > 1]


def reply_to(prompt: str) -> str:
    """The decomposition for whoever asks for one; else an answer that is always the same for a prompt."""
    if "break down" in prompt:
        return LIST
    return f"Let me think.\nThe answer is: {sum(prompt.encode()) % 1000}"


class _Handler(BaseHTTPRequestHandler):
    counting: Counting
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None: ...

    def handle(self) -> None:
        with self.counting.lock:
            self.counting._open.add(self.connection)
        try:
            super().handle()
        except OSError:
            self.close_connection = True
        finally:
            with self.counting.lock:
                self.counting._open.discard(self.connection)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        counting = self.counting
        with counting.lock:
            counting.asked += 1
            fault = counting.fault(prompt, counting.asked)
            counting.keys.add(self.headers.get("Authorization", ""))
        status = {"refuse": 400, "key": 401, "busy": 503}.get(fault)
        if status:
            self._whole(status, {"error": {"message": fault}})
            return
        if fault == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        time.sleep(60 if fault == "stall" else counting.delay_s)
        text = counting.reply(prompt)
        if not body.get("stream"):
            raise AssertionError("edgedc streams")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        with counting.lock:
            counting.begun[prompt] += 1
        half = len(text) // 2
        self._event(text[:half], None)
        if fault == "pause":
            counting.resume.wait(60)
        if fault == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        with counting.lock:  # billed, whether or not somebody is there to read it
            counting.billed[prompt] += 1
        self._event(text[half:], "stop")
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text) // 4}
        self.wfile.write(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n")
        self.close_connection = True

    def _event(self, text: str, finish: str | None) -> None:
        event = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _whole(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def counting() -> Iterator[Counting]:
    made = Counting()
    made.plug()
    try:
        yield made
    finally:
        made.unplug()
