"""llama.cpp as edgedc runs it, llama.cpp alone, and transformers: each is opened in a process of its own.

What is measured in decoding_speed.py for them, and how.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedc.backends.grammar import Admitted, ListGrammar
from edgedc.bundle import read_manifest
from edgedc.prompts import Style, decompose_messages
from edgedc.tasks.microworld import problems

if TYPE_CHECKING:
    from decoding_speed import Subject

    from edgedc.generation import Generation

STRETCH = 0.5  # seconds of decoding that make one figure, at least
PREMISE = "A shop sells pens in boxes of 8 and pencils in boxes of 12, and gives every tenth box away. " * 8

_held: dict[str, Any] = {}


@dataclass(frozen=True)
class InItem(ListGrammar):
    """The reply goes on in a subquestion, so that a model that knows of no lists is not asked for one's beginning."""

    def begin(self) -> Admitted:
        begun = super().begin().take("1. How")
        assert begun is not None
        return begun


def open_edgedc(subject: "Subject") -> None:
    from edgedc.backends.chat import raw_prompts
    from edgedc.backends.llamacpp import LlamaCppBackend

    chat = None if (subject.bundle / "chat_template.jinja").is_file() else raw_prompts(subject.bundle)
    _held["backend"] = LlamaCppBackend(subject.gguf, chat=chat, threads=subject.threads)


def open_at_work(subject: "Subject") -> None:
    """Opened, and so long at work that it has moved the model's weights into huge pages, where there are any."""
    open_edgedc(subject)
    while True:
        for ids in prompts(subject):
            complete(subject, ids)
        if not _held["backend"]._context.movable:
            return


def decode_edgedc(subject: "Subject") -> float:
    """Tokens/s from the first token of a reply to its last, held to a list."""
    backend = _held["backend"]
    backend.complete(prompts(subject)[0][::-1], max_tokens=1)  # nothing in common, as the bare loop begins

    def reply(ids: list[int]) -> tuple[int, float]:
        made = complete(subject, ids)
        return made.usage.output_tokens - 1, made.total_s - (made.first_token_s or 0)

    return rate(reply, prompts(subject))


def rate(reply: Callable[[Any], tuple[int, float]], given: list[Any]) -> float:
    """Of replies to all that is given, again and again until they make a STRETCH."""
    made = [reply(one) for one in given]
    while sum(seconds for _, seconds in made) < STRETCH:
        made += [reply(one) for one in given]
    return sum(count for count, _ in made) / sum(seconds for _, seconds in made)


def complete(subject: "Subject", ids: list[int]) -> "Generation":
    grammar = InItem() if subject.source else ListGrammar(5)  # model folders are bases, which have learnt no lists
    return _held["backend"].complete(ids, max_tokens=subject.tokens, grammar=grammar)


def prompts(subject: "Subject") -> list[list[int]]:
    """In the style that a model knows. The random one's replies never end, so that one is long enough."""
    asked = ["How many pens are there?"] if subject.random else questions(subject)
    style: Style = "instruct-1" if subject.random else read_manifest(subject.bundle).prompt_style
    return [_held["backend"].encode(decompose_messages(text, style=style, cap=5)) for text in asked]


def prefix(subject: "Subject") -> tuple[float, float]:  # noqa: ARG001
    """Seconds to the first token behind an instruction that is new, and behind the same one again."""
    backend = _held["backend"]
    ids = backend.encode(decompose_messages("How many?", PREMISE, style="instruct-1", cap=5))[:208]
    backend.complete(ids[::-1], max_tokens=1)  # nothing in common
    cold, warm = (backend.complete(ids, max_tokens=1) for _ in range(2))
    assert (cold.usage.cached_tokens, warm.usage.cached_tokens) == (0, len(ids) - 1) or ids[0] == ids[-1]
    return cold.first_token_s, warm.first_token_s


def batch(subject: "Subject") -> dict[str, float]:
    """Output tokens/s while all decode, and questions/s with their prompts: one at a time, and together."""
    backend = _held["backend"]
    asked = [decompose_messages(text, style="compact-1", cap=5) for text in questions(subject)]
    figures = {}
    ways: dict[str, Callable[[Any], list[Any]]] = {
        "alone": lambda some: [backend.generate(m, max_tokens=subject.tokens) for m in some],
        "together": lambda some: list(backend.generate_many(some, max_tokens=subject.tokens)),
    }
    for way, run in ways.items():
        run(asked[:1])
        same = run([asked[0]] * 16)
        spans = [m.total_s - m.first_token_s for m in same]
        tokens = sum(m.usage.output_tokens - 1 for m in same)
        figures[f"{way} tokens/s"] = tokens / (sum(spans) if way == "alone" else max(spans))
        start = time.perf_counter()
        count = len(run(asked))
        figures[f"{way} questions/s"] = count / (time.perf_counter() - start)
    return figures


def questions(subject: "Subject") -> list[str]:
    """32 of them. The random model's small tokenizer would make three times the tokens of any but its own words."""
    if not subject.random:
        return [problem.question for problem in problems("test", 32)]
    sentence = "How many pens and pencils does each of the {} children get?"
    return [" ".join(sentence.format(first + k) for k in range(4)) for first in range(100, 132)]


def memory(subject: "Subject") -> dict[str, float]:
    """Peak resident MB of a process that has answered, and what of that are the file and the KV cache."""
    backend = _held["backend"]
    complete(subject, prompts(subject)[0])
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6

    from gguf import GGUFReader  # only now: it is no part of what is measured

    fields = GGUFReader(subject.gguf).fields
    arch = fields["general.architecture"].contents()
    layers, heads = (fields[f"{arch}.{key}"].contents() for key in ("block_count", "attention.head_count_kv"))
    size = fields[f"{arch}.embedding_length"].contents() // fields[f"{arch}.attention.head_count"].contents()
    cache = backend._context.cells * layers * heads * size * 2 * 2 / 1e6  # keys and values, two bytes each
    file = subject.gguf.stat().st_size / 1e6
    return {"peak": peak, "file": file, "cache": cache, "above": peak - file - cache}


def open_bare(subject: "Subject", *, mapped: bool = True) -> None:
    """llama.cpp with nothing around it, and the file mapped as it does by itself (what it rearranges is in memory twice
    then), or read as edgedc has it."""
    import llama_cpp

    from edgedc.backends.gguf_header import check_header
    from edgedc.backends.llamacpp import model_params

    settings = model_params() if mapped else model_params(check_header(subject.gguf)["general.file_type"])
    model = llama_cpp.llama_model_load_from_file(str(subject.gguf).encode(), settings)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 1024, 256, 256
    params.n_threads = params.n_threads_batch = subject.threads
    _held["context"] = llama_cpp.llama_init_from_model(model, params)
    open_edgedc(subject)
    _held["given"] = [(ids, complete(subject, ids).usage.output_tokens - 1) for ids in prompts(subject)]
    _held.pop("backend").close()


def decode_bare(subject: "Subject") -> float:  # noqa: ARG001
    """Tokens/s of `llama_decode` alone, one token after the other, as many behind each prompt as edgedc makes there:
    none is chosen, none is read."""
    import llama_cpp

    context, decode = _held["context"], llama_cpp.llama_decode
    one = (llama_cpp.llama_token * 1)()
    step = llama_cpp.llama_batch_get_one(one, 1)

    def reply(given: tuple[list[int], int]) -> tuple[int, float]:
        ids, count = given
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
        for k in range(0, len(ids), 256):
            some = (llama_cpp.llama_token * len(ids[k : k + 256]))(*ids[k : k + 256])
            if decode(context, llama_cpp.llama_batch_get_one(some, len(some))):
                raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(context)
        start = time.perf_counter()
        for k in range(count):
            one[0] = 300 + k
            if decode(context, step):
                raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(context)
        return count, time.perf_counter() - start

    return rate(reply, _held["given"])


def open_transformers(subject: "Subject") -> None:
    from edgedc.backends.transformers import TransformersBackend

    assert subject.source is not None
    _held["backend"] = TransformersBackend(subject.source, threads=subject.threads, dtype="bfloat16")


def decode_transformers(subject: "Subject") -> float:
    """Tokens/s of its own `generate`."""
    import torch

    model = _held["backend"]._model
    given = torch.tensor(prompts(subject)[:1])
    seconds = []
    for count in (1, subject.tokens):
        start = time.perf_counter()
        model.generate(given, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)
        seconds.append(time.perf_counter() - start)
    return (subject.tokens - 1) / (seconds[1] - seconds[0])
