"""A decomposer that says what it was told to: for tests of what stands above a backend."""

import re
import time
from collections.abc import Iterable, Sequence

from edgedc.backends.greedy import check_context
from edgedc.generation import Generation, Message, OnText
from edgedc.usage import Usage


class ScriptedBackend:
    """Gives its replies in turn. Its tokens are words; a reply is cut at max_tokens like a real one.

    `asked` holds the messages of every call. Raises IndexError when it is asked more often than it has replies.
    """

    def __init__(self, replies: Iterable[str], *, name: str = "scripted", context: int = 1_000_000) -> None:
        self.name, self.context = name, context
        self.asked: list[list[Message]] = []
        self._replies = list(replies)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return list(range(sum(len(message["content"].split()) for message in messages)))

    def generate(self, messages: Sequence[Message], *, max_tokens: int, on_text: OnText | None = None) -> Generation:
        started = time.perf_counter()
        prompt_tokens = len(self.encode(messages))
        check_context(prompt_tokens, max_tokens, self.context)
        self.asked.append(list(messages))
        text = self._replies[len(self.asked) - 1]
        words = text.split()
        cut = len(words) > max_tokens
        if cut:
            text = " ".join(words[:max_tokens])
        if on_text:
            for piece in re.findall(r"\s*\S+|\s+", text):
                on_text(piece)
        seconds = time.perf_counter() - started
        usage = Usage(prompt_tokens, min(len(words), max_tokens))
        return Generation(text, usage, seconds, seconds, "length" if cut else "stop")

    def close(self) -> None:
        pass
