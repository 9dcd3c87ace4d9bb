"""Read what a chat completion endpoint sends back: a stream of server-sent events, or one JSON object."""

import codecs
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from edgedc.solvers.speech import Speech
from edgedc.usage import Usage

MAX_BYTES = 8 * 2**20  # of what is held: a whole reply, a line of a stream, a stream's text

# What some servers (Together, TGI, watsonx) call the end of a reply that is whole.
_ENDS = dict.fromkeys(("eos", "eos_token", "stop_sequence"), "stop")

# What begins a line of a stream of events, and how many bytes it takes to tell.
_FIELDS = (b":", b"data:", b"event:", b"id:", b"retry:")
_TELLING = max(map(len, _FIELDS))

# By content type, whether a body is a stream of events; None: that is told by the body alone.
_KINDS = {"text/event-stream": True, "application/json": False, "text/plain": None, "": None}

# Servers that fail once a stream is begun can say it in their log alone.
_CUT = "the stream ended before the reply did; if the server is yours, its log may say why"
_LEFT = "the stream ended with no finish_reason; some servers drop a call as the next one comes: ask one at a time"

_MOST_TOKENS = 10**9  # no reply has as many, and money is counted in floats


@dataclass
class Reply:
    """A whole reply. Times are of `time.monotonic`; None until there is a token."""

    text: str = ""
    thought: int = 0  # characters of reasoning, which is paid for and not part of the text
    size: int = 0  # characters of both
    refused: bool = False  # the text is what the model says instead of a reply, where the server keeps that apart
    finish_reason: str = ""
    usage: Usage | None = None
    reasoning_tokens: int = 0
    first_token: float | None = None
    last_token: float | None = None


class BrokenOff(ValueError):
    """The stream has ended, and the reply had not. Another attempt may go well."""


def opening(chunks: Iterator[bytes]) -> bytes:
    """As many bytes as say what a body is, and all that came with them; without a byte order mark and blank lines."""
    start = b""
    while len(start) < _TELLING and (chunk := next(chunks, None)) is not None:
        start = (start + chunk).removeprefix(codecs.BOM_UTF8).lstrip()
    return start


def is_stream(start: bytes, kind: str) -> bool | None:
    """Whether the body is a stream of events, or one JSON object; None where it is neither.

    How it begins goes before its content type: servers, and what stands before them, call one by the other's.
    """
    if kind in _KINDS and start.startswith((b"{", *_FIELDS)):
        return not start.startswith(b"{")
    return _KINDS.get(kind)


def read_stream(chunks: Iterable[bytes], speech: Speech, whole: Callable[[Reply], None]) -> Reply:
    """Read a streamed reply to its end. Raises ValueError when it is not the protocol, BrokenOff when it just ends.

    A chunk may hold any number of tokens, of text or of reasoning; the usage comes in a chunk without choices. `whole`
    hears of the reply as soon as it lacks nothing but, perhaps, its usage: what goes wrong after that is passed over,
    as the answer is there and paid for.
    """
    reply, done = Reply(), False
    try:
        for data in _events(chunks):
            if done := data == "[DONE]":
                break
            event = _object(data)
            _count(reply, event)
            if (choice := _first_choice(event)) and not reply.finish_reason:
                _add(reply, speech, choice, choice.get("delta") or {}, time.monotonic())
                if reply.finish_reason:
                    reply.text = speech.end()
                    whole(reply)
    except ValueError:
        if not reply.finish_reason:
            raise
    if not reply.finish_reason:
        # llama-cpp-python's server says so to whom it leaves for another's call.
        raise BrokenOff(_LEFT if done else _CUT)
    return reply


def read_whole(chunks: Iterable[bytes], speech: Speech) -> Reply:
    """Read a reply from a server that does not stream. Raises ValueError when it is not the protocol."""
    event = _object(b"".join(_limited(chunks)).decode("utf-8", "replace"))
    choice = _first_choice(event)
    if choice is None:
        raise ValueError("the reply has no choices")
    reply = Reply()
    _count(reply, event)
    message = choice.get("message")
    _add(reply, speech, choice, message or {}, None)
    if not reply.finish_reason:
        if not message:
            raise ValueError("the reply has no message, and no finish_reason")
        reply.finish_reason = "stop"  # the object is whole, and so is what it holds
    reply.text = speech.end()
    return reply


def read_error(chunks: Iterable[bytes]) -> str:
    """The message of an error reply as one line of at most 200 characters; "" when there is none."""
    try:
        text = b"".join(_limited(chunks, 2**16)).decode("utf-8", "replace")
    except ValueError:
        return ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "" if text.lstrip().startswith("<") else _line(text)
    while isinstance(value, dict):
        value = next((value[k] for k in ("error", "message", "detail") if value.get(k)), "")
    return _line(value if isinstance(value, str) else json.dumps(value))


def read_usage(event: dict[str, Any]) -> Usage | None:
    """The server's own count, or None where it gives none, or none that makes sense.

    Some servers leave reasoning out of the completion's tokens and have it in the total only; it is output, and billed.
    """
    match event.get("usage"):
        case {"prompt_tokens": int(read), "completion_tokens": int(written), **rest} if (
            _is_count(read) and _is_count(written) and read
        ):
            cached = min(_detail(rest, "prompt_tokens_details", "cached_tokens"), read)
            total = rest.get("total_tokens")
            written = max(written, total - read if _is_count(total) else 0)
            return Usage(read, written, cached, "server") if read + written <= _MOST_TOKENS else None
    return None


def _count(reply: Reply, event: dict[str, Any]) -> None:
    if usage := read_usage(event):
        reply.usage = usage
        thought = _detail(event["usage"], "completion_tokens_details", "reasoning_tokens")
        reply.reasoning_tokens = min(thought, usage.output_tokens)


def _detail(usage: Mapping[Any, Any], group: str, name: str) -> int:
    """A count in a part of the usage; 0 where there is none."""
    details = usage.get(group)
    value = details.get(name) if isinstance(details, dict) else 0
    return value if _is_count(value) else 0


def _is_count(value: object) -> TypeGuard[int]:
    """True is no number of tokens, though Python takes it for 1."""
    return type(value) is int and value >= 0


def _events(chunks: Iterable[bytes]) -> Iterator[str]:
    """The data of each event. Each `data:` line is one: JSON has no bare line breaks, and some servers send no blank
    line between events. Only lines are limited: around each token there are hundreds of bytes."""
    rest: list[bytes] = []  # of a line whose end has not come; joined once, however small its pieces are
    size = 0
    for chunk in chunks:
        *lines, last = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join([*rest, lines[0]])
            rest, size = [], 0
        rest.append(last)
        size += len(last)
        if size > MAX_BYTES:
            raise ValueError(f"a line of the reply is longer than {MAX_BYTES} bytes")
        yield from (_data(line) for line in lines if line.startswith(b"data:"))
    if (line := b"".join(rest)).startswith(b"data:"):
        if not line.rstrip().endswith((b"}", b"[DONE]")):
            raise BrokenOff(_CUT)
        yield _data(line)


def _data(line: bytes) -> str:
    return line[5:].decode("utf-8", "replace").strip()


def _limited(chunks: Iterable[bytes], limit: int = MAX_BYTES) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise ValueError(f"the reply is longer than {limit} bytes")
        yield chunk


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {_line(text, 60)!r}") from error
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {_line(text, 60)!r}")
    if value.get("error"):
        raise ValueError(f"the server reports an error: {read_error([text.encode()])}")
    return value


def _first_choice(event: dict[str, Any]) -> dict[str, Any] | None:
    match event.get("choices"):
        case [dict(choice), *_]:
            return choice
        case None | []:
            return None
    raise ValueError("choices is not a list of objects")


def _add(reply: Reply, speech: Speech, choice: dict[str, Any], part: Any, now: float | None) -> None:
    if not isinstance(part, dict):
        raise ValueError("a choice holds no message")
    text = _text_of(part.get("content"))
    thought = part.get("reasoning_content") or part.get("reasoning") or ""
    refusal = part.get("refusal") or ""
    if not (isinstance(thought, str) and isinstance(refusal, str)):
        raise ValueError("a message's content is not text")
    if text or thought or refusal:
        reply.first_token = reply.first_token or now
        reply.last_token = now
    reply.size += len(text) + len(refusal) + len(thought)
    if reply.size > MAX_BYTES:
        raise ValueError(f"the reply is longer than {MAX_BYTES} characters")
    reply.thought += len(thought)
    reply.refused = speech.aside = reply.refused or bool(refusal)
    speech.add(text + refusal)
    reason = choice.get("finish_reason")
    reply.finish_reason = _ENDS.get(reason, _line(reason, 40)) if isinstance(reason, str) else ""


def _text_of(content: object) -> str:
    """A message's content: text, or a list of parts, of which those of another type, as reasoning, are passed over."""
    match content:
        case None:
            return ""
        case str():
            return content
        case list() if all(isinstance(part, dict) for part in content):
            texts = [part.get("text") for part in content if part.get("type") == "text"]
            if all(isinstance(text, str) for text in texts):
                return "".join(map(str, texts))
    raise ValueError("a message's content is not text")


def _line(text: str, limit: int = 200) -> str:
    return " ".join(text.split())[:limit]
