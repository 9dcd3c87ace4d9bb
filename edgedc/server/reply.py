"""What is sent back: OpenAI's shapes, and edgedc's own field in them, `edgedc`, which other clients pass over.

A completion has `edgedc` with the whole result. In a stream it comes in chunks whose delta is empty:

    {"stage": "decompose", "delta": "1. How"}         the decomposer's reply as it forms; so too "step 1", "step 2", ...
    {"decomposition": {"status", "subquestions"}}     once it is whole
    the whole result                                  in the chunk with the finish_reason

An error of a question that has been begun has in `error.edgedc` what there is of it.
"""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.responses import Response

from edgedc.usage import Usage

Object = dict[str, Any]

# How a chat request may end: answered; begun, but the solver failed; failed; a wrong request; no room; its client left.
Outcome = Literal["answered", "partial", "failed", "refused", "busy", "gone"]
BUSY, GONE = "server_busy", "client_gone"

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


@dataclass(frozen=True)
class Piece:
    """A part of a reply as it comes: text for everybody, or edgedc's own field."""

    text: str = ""
    edgedc: Object = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """A whole reply. `refusal`: what a model says that would not answer; there is no text then. `summary`: a line."""

    text: str
    finish_reason: str
    usage: Usage
    edgedc: Object
    summary: str
    refusal: str | None = None


class Envelope:
    """The fields that all chunks of one reply share."""

    def __init__(self, model: str) -> None:
        self._id, self._created, self._model = f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), model

    def completion(self, reply: Reply) -> Object:
        message = {"role": "assistant", "content": None if reply.refusal else reply.text, "refusal": reply.refusal}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
        return self._object("chat.completion", [choice]) | {"usage": usage_of(reply.usage), "edgedc": reply.edgedc}

    def opening(self) -> Object:
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, piece: Piece) -> Object:
        chunk = self._chunk({"content": piece.text} if piece.text else {})
        return chunk | {"edgedc": piece.edgedc} if piece.edgedc else chunk

    def closing(self, reply: Reply) -> Object:
        delta = {"refusal": reply.refusal} if reply.refusal else {}
        return self._chunk(delta, reply.finish_reason) | {"edgedc": reply.edgedc}

    def usage(self, reply: Reply) -> Object:
        return self._object("chat.completion.chunk", []) | {"usage": usage_of(reply.usage)}

    def _chunk(self, delta: Object, finish_reason: str | None = None) -> Object:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._object("chat.completion.chunk", [choice])

    def _object(self, kind: str, choices: list[Object]) -> Object:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model, "choices": choices}


class Refused(Exception):
    """What is not answered, as OpenAI says it.

    `param`: the field at fault. `retry_after`: seconds after which the same request may go well; None: it is not worth
    a try. `edgedc`: what there is of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        edgedc: Object | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after, self.edgedc = retry_after, edgedc

    @property
    def outcome(self) -> Outcome:
        if self.code in (BUSY, GONE):
            return "busy" if self.code == BUSY else "gone"
        if self.edgedc:
            return "partial"
        return "refused" if self.status < 500 else "failed"

    @property
    def body(self) -> Object:
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error | {"edgedc": self.edgedc} if self.edgedc else error}

    @property
    def headers(self) -> dict[str, str]:
        """OpenAI's clients repeat a request after 429 or 5xx, unless x-should-retry says no."""
        # Whoever is still sending may stop: what is left of the request is thrown away (see _Connection in run.py).
        headers = {"connection": "close"} if self.status in (413, 500) else {}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.retry_after is not None:
            return headers | {"retry-after": str(self.retry_after)}
        return headers | {"x-should-retry": "false"}


def usage_of(usage: Usage) -> Object:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def to_json(value: Object) -> bytes:
    """Half a character that a model wrote is written as an escape, as JSON allows."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def event(value: Object) -> bytes:
    """As a server-sent event."""
    return b"data: " + to_json(value) + b"\n\n"


LAST = b"data: [DONE]\n\n"


def json_response(value: Object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(value), status, headers, "application/json")


def error_response(refused: Refused) -> Response:
    return json_response(refused.body, refused.status, refused.headers)
