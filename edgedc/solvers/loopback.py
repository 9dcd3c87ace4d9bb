"""A small HTTP server on this machine that speaks the OpenAI chat protocol over a real socket."""

import contextlib
import json
import math
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from edgedc.errors import InputError
from edgedc.flags import flag
from edgedc.generation import Message
from edgedc.solvers import SIMULATED

# Fields that ask for another kind of reply than text. How a text is sampled is another matter, as here it is made up.
_NOT_TEXT = ("tools", "tool_choice", "functions", "function_call", "response_format", "logprobs", "audio", "stop")
_LONGEST_REQUEST = 2**20
_LINGERS_FOR, _LINGERS_S = 64 * 2**20, 5.0  # bytes and seconds that a refused client may still send


@dataclass(frozen=True)
class Timing:
    """How long the server pretends to think: before its first token, and for each token.

    Raises InputError for a time that cannot be waited.
    """

    first_token_s: float = flag(0.15, "Seconds before the first token of a reply.")
    per_token_s: float = flag(0.004, "Seconds per token of a reply.")

    def __post_init__(self) -> None:
        for name, seconds in asdict(self).items():
            if not 0 <= seconds < math.inf:  # true for NaN too
                raise InputError(f"--{name.replace('_', '-')} {seconds}: give seconds, 0 or more")


class Reply(Protocol):
    """What a model says. `seed` is given for a reply that is to be sampled: a request with a temperature above 0."""

    def __call__(self, messages: Sequence[Message], *, seed: int = 0) -> str: ...


@contextlib.contextmanager
def serve(reply: Reply, model: str, *, port: int, timing: Timing, simulated: bool) -> Iterator[str]:
    """Serve `reply` while the block runs; yields the base URL. Port 0 takes a free one; raises InputError if taken.

    A simulated model says so, in /v1/models and in a header of every response.
    """
    try:
        server = _Server(port, reply, model, timing, simulated)
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port} cannot be used ({error}): give another with --port") from error
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, reply: Reply, model: str, timing: Timing, simulated: bool) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.reply, self.model, self.timing, self.simulated = reply, model, timing, simulated


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # tokens are tiny packets, and must not wait for one another
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None: ...

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # the client has gone
            self.close_connection = True

    def do_GET(self) -> None:
        entry = {
            "id": self.server.model,
            "object": "model",
            "created": 0,
            "owned_by": "edgedc",
            "simulated": self.server.simulated,
        }
        if self.path == "/v1/models":
            return self._json(200, {"object": "list", "data": [entry]})
        if self.path == f"/v1/models/{self.server.model}":
            return self._json(200, entry)
        return self._nowhere()

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        # isdigit is true of a superscript too, and int fails at thousands of digits
        if not length.isdecimal() or len(length) > 18 or int(length) > _LONGEST_REQUEST:
            self.close_connection = True
            self._error(413, f"a request has a Content-Length of at most {_LONGEST_REQUEST}")
            return self._linger()
        body = self.rfile.read(int(length))
        if self.path != "/v1/chat/completions":
            return self._nowhere()
        try:
            request = _checked(json.loads(body))
        except (ValueError, RecursionError) as error:
            return self._error(400, f"not a chat request: {error}")
        if request["model"] != self.server.model:
            return self._error(404, f"no model {request['model']!r} here; there is {self.server.model!r}")
        return self._answer(request)

    def _answer(self, request: dict[str, Any]) -> None:
        sampled = {"seed": request.get("seed") or 0} if request.get("temperature") else {}
        tokens = _tokens(self.server.reply(request["messages"], **sampled))
        limit = request.get("max_completion_tokens") or request.get("max_tokens")
        kept = tokens if limit is None else tokens[:limit]
        reason = "stop" if kept == tokens else "length"
        read = sum(len(_tokens(message["content"])) for message in request["messages"])
        usage = {"prompt_tokens": read, "completion_tokens": len(kept), "total_tokens": read + len(kept)}
        time.sleep(self.server.timing.first_token_s)
        if not request.get("stream"):
            time.sleep(self.server.timing.per_token_s * len(kept))
            message = {"role": "assistant", "content": "".join(kept)}
            choice = {"index": 0, "message": message, "finish_reason": reason}
            return self._json(200, self._envelope("chat.completion", [choice]) | {"usage": usage})
        self._head(200, "text/event-stream", "Transfer-Encoding", "chunked")
        # OpenAI's own client for JavaScript fails without a role.
        self._event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        for number, token in enumerate(kept):
            time.sleep(self.server.timing.per_token_s if number else 0)
            self._event([{"index": 0, "delta": {"content": token}, "finish_reason": None}])
        self._event([{"index": 0, "delta": {}, "finish_reason": reason}])
        if (request.get("stream_options") or {}).get("include_usage"):
            self._event([], usage=usage)
        self._chunk(b"data: [DONE]\n\n")
        return self._chunk(b"")

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> None:
        event = self._envelope("chat.completion.chunk", choices) | more
        self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": "chatcmpl-0", "object": kind, "created": 0, "model": self.server.model, "choices": choices}

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _nowhere(self) -> None:
        self._error(404, f"no such path: {self.path}; there are /v1/chat/completions and /v1/models")

    def _error(self, status: int, message: str) -> None:
        self._json(status, {"error": {"message": message, "type": "invalid_request_error"}})

    def _json(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self._head(status, "application/json", "Content-Length", str(len(body)))
        self.wfile.write(body)

    def _linger(self) -> None:
        """Throw away what still comes: a close with bytes unread takes the refusal from the client (RFC 9112, 9.6)."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(_LINGERS_S)
        left, until = _LINGERS_FOR, time.monotonic() + _LINGERS_S
        with contextlib.suppress(OSError):
            while left > 0 and time.monotonic() < until and (some := self.rfile.read1(65536)):
                left -= len(some)

    def _head(self, status: int, kind: str, *framing: str) -> None:
        self.send_response(status)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Type", kind)
        self.send_header(*framing)
        if self.server.simulated:
            self.send_header(SIMULATED, "true")
        self.end_headers()


def _checked(request: Any) -> dict[str, Any]:
    """Raises ValueError when it is not a chat request whose messages are text."""
    match request:
        case {"model": str(), "messages": [_, *_] as messages}:
            for message in messages:
                match message:
                    case {"role": str(), "content": str()}:
                        continue
                raise ValueError("each message needs a role and a content of text")
        case _:
            raise ValueError("it needs a model and messages")
    for field in _NOT_TEXT:
        if request.get(field) not in (None, False, [], "none", "auto", {"type": "text"}):
            raise ValueError(f"{field} is not supported here: leave it out")
    if request.get("n") not in (None, 1):
        raise ValueError("n must be 1")
    for field in ("max_tokens", "max_completion_tokens"):
        limit = request.get(field)
        if limit is not None and not (isinstance(limit, int) and limit >= 1):
            raise ValueError(f"{field} must be a positive integer")
    temperature, seed = request.get("temperature") or 0, request.get("seed") or 0
    if not (isinstance(temperature, int | float) and 0 <= temperature <= 2 and isinstance(seed, int)):
        raise ValueError("temperature must be a number from 0 to 2, and seed an integer")
    if not isinstance(request.get("stream_options") or {}, dict):
        raise ValueError("stream_options must be an object")
    return dict(request)


def _tokens(text: str) -> list[str]:
    """Words and marks, each with the white space before it: about as many as tokens."""
    return re.findall(r"\s*(?:\w+|[^\w\s])", text)
