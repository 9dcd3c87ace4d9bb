"""Read a chat request: what of OpenAI's protocol is honoured here, and a refusal, by its name, of everything else."""

import json
from dataclasses import dataclass
from typing import Any

from edgedc.generation import Message
from edgedc.server.reply import Refused

_MOST_TOKENS = 1_000_000

# Fields that change nothing when they hold one of these values; null is as good as absent, here and everywhere.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (False, True),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
# They tell a provider who asks, and do not change a reply; they stay here.
_LABELS = ("user", "metadata", "safety_identifier", "prompt_cache_key")
_READ = (
    *("model", "messages", "stream", "stream_options"),
    *("max_tokens", "max_completion_tokens", "temperature", "seed"),
)
_NOT_HERE = "is not supported here, or not with this value: leave it out"


@dataclass(frozen=True)
class ChatRequest:
    """What was asked for.

    `question` is the last message, which is the user's. `premise` is what the user and the assistant said before it.
    `system` holds what the system or the developer said, for the solver. None: whoever answers decides.
    """

    model: str
    question: str
    premise: str = ""
    system: tuple[Message, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    stream: bool = False
    include_usage: bool = False


def read_request(body: bytes) -> ChatRequest:
    """Raises Refused (400), naming the field, for what is malformed or cannot be honoured; nothing is dropped."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise Refused(400, "the body is not a JSON object")
    fields = {name: value for name, value in given.items() if value is not None}
    unknown = [n[:60] for n, v in fields.items() if n not in (*_READ, *_LABELS) and v not in _NEUTRAL.get(n, ())]
    if unknown:  # they come in pairs, as tools and tool_choice
        raise _unsupported(unknown[0], f"{_NOT_HERE}; {', '.join(unknown[1:5])} too" if unknown[1:] else "")
    model = fields.get("model")
    if not isinstance(model, str):
        raise _wrong("model", "must be the name of a model: GET /v1/models lists them")
    system, premise, question = _conversation(fields.get("messages"))
    stream = _bool(fields, "stream")
    return ChatRequest(
        model,
        question,
        premise,
        system,
        max_tokens=_limit(fields),
        temperature=_number(fields, "temperature"),
        seed=_integer(fields, "seed", -(2**63), 2**63 - 1),
        stream=stream,
        include_usage=_include_usage(fields, stream),
    )


def _conversation(messages: Any) -> tuple[tuple[Message, ...], str, str]:
    """System messages, premise and question."""
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "must be a list of at least one message")
    said = [_message(message, f"messages[{k}]") for k, message in enumerate(messages)]
    last = said.pop()
    if last["role"] != "user":
        raise _wrong(f"messages[{len(said)}].role", "must be user: the last message is the question")
    if not last["content"].strip():
        raise _wrong(f"messages[{len(said)}].content", "is empty: the last message is the question")
    system = tuple(message for message in said if message["role"] == "system")
    before = [message for message in said if message["role"] != "system" and message["content"].strip()]
    if any(message["role"] == "assistant" for message in before):
        premise = "\n".join(f"{message['role'].title()}: {message['content']}" for message in before)
    else:
        premise = "\n".join(message["content"] for message in before)
    return system, premise, last["content"]


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise _wrong(where, "must be an object with a role and a content")
    fields = {name: value for name, value in message.items() if value not in (None, [])}
    for name in fields:
        if name not in ("role", "content") and (name, fields.get("role")) != ("refusal", "assistant"):
            raise _unsupported(f"{where}.{name[:60]}")
    match fields.get("role"):
        case "system" | "developer":
            return {"role": "system", "content": _text(fields.get("content"), f"{where}.content")}
        case "user":
            return {"role": "user", "content": _text(fields.get("content"), f"{where}.content")}
        case "assistant":  # its refusal stands in the place of a content, as a reply from here has it
            said = "content" if "content" in fields else "refusal"
            return {"role": "assistant", "content": _text(fields.get(said, ""), f"{where}.{said}")}
        case "tool" | "function":
            raise _unsupported(f"{where}.role")
    raise _wrong(f"{where}.role", "must be system, developer, user or assistant")


def _text(content: Any, where: str) -> str:
    """A message's text, whose parts, where it comes in parts, are set below one another."""
    if isinstance(content, list):
        texts = []
        for k, part in enumerate(content):
            match part:
                case {"type": "text", "text": str(text)}:
                    texts.append(text)
                case {"type": str(kind)} if kind != "text":
                    raise _unsupported(f"{where}[{k}].type", f"{kind[:30]!r} is not supported here, only text is")
                case _:
                    raise _wrong(f"{where}[{k}]", "must be a part with a type and a text")
        content = "\n".join(texts)
    if not isinstance(content, str):
        raise _wrong(where, "must be text")
    try:
        content.encode("utf-8")
    except UnicodeEncodeError:
        raise _wrong(where, "holds half a character (a lone surrogate), which no tokenizer can read") from None
    return content


def _limit(fields: dict[str, Any]) -> int | None:
    old = _integer(fields, "max_tokens", 1, _MOST_TOKENS)
    new = _integer(fields, "max_completion_tokens", 1, _MOST_TOKENS)
    if None not in (old, new) and old != new:
        raise _wrong("max_tokens", "differs from max_completion_tokens: give one of them")
    return old if new is None else new


def _include_usage(fields: dict[str, Any], stream: bool) -> bool:
    options = fields.get("stream_options", {})
    if not isinstance(options, dict):
        raise _wrong("stream_options", "must be an object")
    if options and not stream:
        raise _wrong("stream_options", "is only for stream: true")
    for name, value in options.items():
        # Padding against eavesdroppers who guess texts from the sizes of chunks is not made here.
        if name != "include_usage" and (name, value) != ("include_obfuscation", False) and value is not None:
            raise _unsupported(f"stream_options.{name[:60]}")
    return _bool(options, "include_usage", "stream_options.")


def _bool(fields: dict[str, Any], name: str, within: str = "") -> bool:
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _wrong(within + name, "must be true or false")


def _integer(fields: dict[str, Any], name: str, least: int, most: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong(name, f"must be an integer from {least} to {most}")
    return value


def _number(fields: dict[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2:  # false for NaN too
        raise _wrong(name, "must be a number from 0 to 2")
    return float(value)


def _wrong(param: str, what: str) -> Refused:
    return Refused(400, f"{param} {what}", param=param, code="invalid_value")


def _unsupported(param: str, why: str = "") -> Refused:
    what = why or _NOT_HERE
    return Refused(400, f"{param}: {what}", param=param, code="unsupported_parameter")
