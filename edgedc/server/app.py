"""The routes of the endpoint, and what becomes of a chat request."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from edgedc.server.guard import Guard
from edgedc.server.metrics import Metrics
from edgedc.server.reply import LAST, Envelope, Outcome, Refused, error_response, event, json_response
from edgedc.server.request import ChatRequest, read_request
from edgedc.server.service import Service, refusal
from edgedc.server.work import Task, Workers

_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]

OnRequest = Callable[[str], None]


def make_app(
    service: Service, workers: Workers, *, metrics: Metrics, key: str | None, max_body: int, on_request: OnRequest
) -> Starlette:
    """The endpoint. Without a `key` it answers this machine alone; `on_request` hears a line as a chat request ends."""

    async def health(_: Request) -> Response:
        return json_response({"status": "ok"})

    async def measured(_: Request) -> Response:
        # What is booked is read from the disk, and another process may hold the file.
        return await asyncio.to_thread(metrics.response)

    async def models(_: Request) -> Response:
        return json_response({"object": "list", "data": [service.described(name) for name in service.models]})

    async def model(request: Request) -> Response:
        return json_response(service.described(request.path_params["name"]))

    chat = _Chat(service, workers, metrics, max_body, on_request)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat.receive, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/health", health),
            Route("/metrics", measured),
        ],
        middleware=[Middleware(Guard, key=key)],
        exception_handlers={Refused: _on_refused, HTTPException: _on_http, Exception: _on_bug},
    )


class _Chat:
    def __init__(
        self, service: Service, workers: Workers, metrics: Metrics, max_body: int, on_request: OnRequest
    ) -> None:
        self._service, self._workers, self._metrics = service, workers, metrics
        self._max_body, self._on_request = max_body, on_request

    async def receive(self, request: Request) -> ASGIApp:
        """Read a request and have it worked on; what is returned sends the reply."""
        started = time.monotonic()
        try:
            asked = read_request(await _read_body(request, self._max_body))
            task = Task(self._service.work(asked))
            self._workers.start(task)
        except ClientDisconnect:
            self._end("gone", started)
            return _send_nothing
        except Refused as refused:
            self._end(refused.outcome, started, f"{refused.status} {refused.param or refused.code or ''}".strip())
            return error_response(refused)
        return partial(self._respond, asked, task, started)

    async def _respond(
        self, asked: ChatRequest, task: Task, started: float, scope: Scope, receive: Receive, send: Send
    ) -> None:
        envelope = Envelope(asked.model)
        watcher = asyncio.create_task(self._hang_up(task, receive))
        outcome: Outcome = "failed"
        detail, streaming = "a bug: its traceback is in the log", False
        try:
            piece = await task.next()
            self._metrics.first_piece.observe(time.monotonic() - started)
            if asked.stream:
                streaming = True
                await send({"type": "http.response.start", "status": 200, "headers": _STREAM})
                await _write(send, event(envelope.opening()))
            while piece is not None:
                if asked.stream:
                    await _write(send, event(envelope.piece(piece)))
                piece = await task.next()
            if asked.stream:
                usage = event(envelope.usage(task.reply)) if asked.include_usage else b""
                await _write(send, event(envelope.closing(task.reply)) + usage + LAST, last=True)
            else:
                await json_response(envelope.completion(task.reply))(scope, receive, send)
            outcome, detail = "answered", task.reply.summary
        except Exception as error:
            refused = refusal(error)  # a bug is raised again
            outcome, detail = refused.outcome, str(refused)
            if streaming:  # its status is sent, so the error is an event, which OpenAI's clients raise
                await _write(send, event(refused.body), last=True)
            else:
                await error_response(refused)(scope, receive, send)
        finally:
            watcher.cancel()
            self._end(outcome, started, detail)

    async def _hang_up(self, task: Task, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._workers.stop(task)

    def _end(self, outcome: Outcome, started: float, detail: str = "") -> None:
        seconds = time.monotonic() - started
        self._metrics.end(outcome, seconds)
        self._on_request(f"{outcome} in {seconds:.2f} s" + (f": {detail}" if detail else ""))


async def _read_body(request: Request, limit: int) -> bytes:
    """Raises Refused for what is too long, before it is read where its length is stated, or is not declared JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "send the request as Content-Type: application/json")
    too_long = Refused(413, f"the request is longer than {limit} bytes: shorten it, or raise --max-body")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise too_long
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_long
    return bytes(body)


async def _write(send: Send, body: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


async def _send_nothing(_: Scope, __: Receive, ___: Send) -> None: ...


async def _on_refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error_response(error)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path[:100]}: {error.detail}"
    if error.status_code == 404:  # some clients use another of OpenAI's protocols unless told otherwise
        what += "; here is POST /v1/chat/completions: set the client to chat completions, its base URL ending in /v1"
    return error_response(Refused(error.status_code, what))


async def _on_bug(_: Request, __: Exception) -> Response:
    """Starlette raises the error again, so that its traceback comes into the log."""
    return error_response(Refused(500, "edgedc itself failed: its log has the traceback"))
