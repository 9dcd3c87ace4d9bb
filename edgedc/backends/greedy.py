"""What every backend shares: checks of a request, and the loop that takes the likeliest token and measures."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgedc.errors import ContextError, InputError
from edgedc.generation import Generation, Message
from edgedc.ledger import Usage


class GreedyBackend(ABC):
    """A backend that says how it renders, tokenizes and goes on; the requests follow from that.

    `_reused` is how many of the last prompt's tokens were known from the one before.
    """

    name: str
    context_length: int
    _ends: frozenset[int]
    _reused = 0

    @abstractmethod
    def render(self, messages: Sequence[Message]) -> str:
        """The prompt, ending where the model is to go on."""

    @abstractmethod
    def tokenize(self, prompt: str) -> list[int]:
        """Ids of a rendered prompt: special tokens in it are read as such, and none is added."""

    @abstractmethod
    def text_of(self, ids: Sequence[int]) -> str:
        """The text of a reply, without special tokens."""

    @abstractmethod
    def _greedy(self, ids: list[int]) -> Iterator[int]:
        """The likeliest token after `ids`, then after that, without end. It is worked out when it is asked for."""

    @abstractmethod
    def close(self) -> None: ...

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenize(self.render(messages))

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        started = time.perf_counter()
        return self.complete(self.encode(messages), max_tokens=max_tokens, started=started)

    def complete(self, ids: Sequence[int], *, max_tokens: int, started: float | None = None) -> Generation:
        """Go on from token ids. Raises ContextError as `generate` does."""
        check_context(len(ids), max_tokens, self.context_length)
        return follow(
            self._greedy(list(ids)),
            is_end=self._ends.__contains__,
            text_of=self.text_of,
            started=time.perf_counter() if started is None else started,
            prompt_tokens=len(ids),
            max_tokens=max_tokens,
            cached=lambda: self._reused,
        )


def check_context(prompt_tokens: int, max_tokens: int, context: int) -> None:
    """Raises ContextError when a prompt and its longest reply do not fit: nothing is ever cut to make it."""
    if prompt_tokens + max_tokens > context:
        raise ContextError(
            f"the prompt has {prompt_tokens} tokens and its reply may have {max_tokens}, more than the model's context "
            f"of {context} together: shorten the question or its premise, or allow a shorter reply"
        )


def encodable(text: str) -> str:
    """The text itself. Raises InputError when it holds half a character, which no tokenizer can read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        around = ascii(text[max(0, error.start - 10) : error.end + 10])
        raise InputError(f"not valid Unicode near {around}: remove the lone surrogate") from error
    return text


def follow(
    tokens: Iterator[int],
    *,
    is_end: Callable[[int], bool],
    text_of: Callable[[list[int]], str],
    started: float,
    prompt_tokens: int,
    max_tokens: int,
    cached: Callable[[], int] = lambda: 0,
) -> Generation:
    """Take tokens until one ends the reply (`stop`) or there are max_tokens of them (`length`).

    `tokens` works each one out when it is asked for. The end token counts as output, as it took the same work, and is
    not part of the text. `started` is time.perf_counter() at the start of the request; `cached` says, afterwards, how
    many of the prompt's tokens were known from the prompt before.
    """
    reply: list[int] = []
    first_token_s = None
    finish_reason, made = "length", 0
    while made < max_tokens:
        token = next(tokens)
        made += 1
        if first_token_s is None:
            first_token_s = time.perf_counter() - started
        if is_end(token):
            finish_reason = "stop"
            break
        reply.append(token)
    text = text_of(reply)
    total_s = time.perf_counter() - started
    usage = Usage(prompt_tokens, made, cached_tokens=cached(), source="tokenizer")
    return Generation(text, usage, first_token_s, total_s, finish_reason)


def physical_cores() -> int:
    """Cores that this process may use, hyperthreads counted once: more threads than that slow decoding down."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, (os.cpu_count() or 2) // 2)
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text("ascii").strip() if siblings.is_file() else str(cpu))
    return len(cores)
