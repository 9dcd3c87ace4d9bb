"""A solver that says what it was told to, for tests and for trying the pipeline without a network."""

import time
from collections.abc import Iterable, Sequence

from edgedc.errors import SolverReply
from edgedc.generation import Generation, Message, OnText
from edgedc.usage import Usage, estimate_tokens


class ScriptedSolver:
    """Gives the replies in order, as text or whole generations; `asked` and `seeds` keep what it was asked."""

    model = "scripted"

    def __init__(self, replies: Iterable[str | Generation]) -> None:
        self._replies = iter(replies)
        self.asked: list[Sequence[Message]] = []
        self.seeds: list[int | None] = []

    def solve(
        self, messages: Sequence[Message], *, max_tokens: int, seed: int | None = None, on_text: OnText | None = None
    ) -> Generation:
        """Cuts a text at `max_tokens`, about four characters each. Raises SolverReply when the script is over."""
        started = time.monotonic()
        self.asked.append(messages)
        self.seeds.append(seed)
        reply = next(self._replies, None)
        if reply is None:
            raise SolverReply(f"the script has no reply to call {len(self.asked)}")
        text = reply.text if isinstance(reply, Generation) else reply[: 4 * max_tokens]
        if on_text and text:
            on_text(text)
        if isinstance(reply, Generation):
            return reply
        prompt = "".join(message["content"] for message in messages)
        return Generation(
            text,
            Usage(estimate_tokens(prompt), estimate_tokens(text), source="estimate"),
            first_token_s=time.monotonic() - started,
            total_s=time.monotonic() - started,
            finish_reason="stop" if text == reply else "length",
            bytes_sent=len(prompt.encode()),
        )

    def close(self) -> None: ...
