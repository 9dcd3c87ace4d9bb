"""What every backend shares: checks of a request, and the loop that gives scores to the reply."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from edgedc.backends.grammar import ListGrammar
from edgedc.backends.marks import Marks
from edgedc.backends.reply import TURNED, Reply
from edgedc.errors import ContextError, EdgedcError, InputError
from edgedc.generation import Generation, Message, OnText, Request

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgedc.backends.reply import Scores


_LONG = 32  # characters for each token of the context: a prompt of more is looked at in parts first


class GreedyBackend(ABC):
    """A backend that says how it renders, tokenizes and goes on; the requests follow from that.

    `_reused` is how many of the last prompt's tokens were known from the one before.
    """

    name: str
    context_length: int
    _ends: frozenset[int]
    _marks: Marks
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
    def scores(self, ids: list[int], max_tokens: int) -> "Generator[Scores, int, None]":
        """The scores behind `ids`; then, for each token that is sent, those behind it, at most max_tokens in all.

        They are good until the next ones are asked for.
        """

    @abstractmethod
    def logits(self, ids: Sequence[int], *, start: int) -> "npt.NDArray[np.float32]":
        """See ModelBackend."""

    @abstractmethod
    def close(self) -> None: ...

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self._marks.encode(messages, self._within_reason)

    def _within_reason(self, messages: Sequence[Message]) -> str:
        """The rendered prompt. Raises ContextError where a part of it has twice the tokens that there is room for.

        Tokenizers take fifty bytes and more for each one of a text: for megabytes of it, many times the model. Twice,
        as the whole may be read as other tokens than its part; what is let in is tokenized whole and counted.
        """
        text = self.render(messages)
        part = _LONG * self.context_length
        while part < len(text):
            count = len(self.tokenize(text[:part]))
            if count > 2 * self.context_length:
                raise ContextError(
                    f"the prompt has {len(text)} characters, and {part} of them are {count} tokens already, more than "
                    f"the model's context of {self.context_length}: shorten the question or its premise"
                )
            part *= 4
        return text

    def generate(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        grammar: ListGrammar | None = None,
        on_text: OnText | None = None,
    ) -> Generation:
        started = time.perf_counter()
        ids = self.encode(messages)
        return self.complete(ids, max_tokens=max_tokens, grammar=grammar, on_text=on_text, started=started)

    def complete(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int,
        grammar: ListGrammar | None = None,
        on_text: OnText | None = None,
        started: float | None = None,
    ) -> Generation:
        """Go on from token ids. Raises ContextError as `generate` does, InputError when there are none."""
        reply = self._begin(ids, max_tokens, grammar, on_text, time.perf_counter() if started is None else started)
        if max_tokens < 1:
            return reply.generation(cached=0)
        steps = self.scores(list(ids), max_tokens)
        token = reply.take(next(steps))
        cached = self._reused
        while token is not None:
            if token is TURNED:
                steps.close()
                steps = self.scores([*ids, *reply.tokens], max_tokens - len(reply.tokens))
                token = reply.take(next(steps))
            else:
                token = reply.take(steps.send(token))
        return reply.generation(cached=cached)

    def generate_many(
        self, requests: Iterable[Sequence[Message]], *, max_tokens: int, grammar: ListGrammar | None = None
    ) -> Iterator[Generation | EdgedcError]:
        """`generate` for each of the requests, in order; one that cannot be done gives its error in its place."""
        for messages in requests:
            try:
                made: Generation | EdgedcError = self.generate(messages, max_tokens=max_tokens, grammar=grammar)
            except EdgedcError as error:
                made = error
            yield made

    def generate_as_they_come(
        self, requests: Iterable[Request | None], *, grammar: ListGrammar | None = None
    ) -> Iterator[tuple[int, Generation | EdgedcError]]:
        """See ModelBackend."""
        return one_by_one(partial(self.generate, grammar=grammar), requests)

    def _begin(
        self, ids: Sequence[int], max_tokens: int, grammar: ListGrammar | None, on_text: OnText | None, started: float
    ) -> Reply:
        if not ids:
            raise InputError(f"{self.name}: the prompt has no tokens: its chat template writes nothing")
        check_context(len(ids), max_tokens, self.context_length)
        return Reply(self.text_of, self._ends, len(ids), max_tokens, grammar, on_text, started)


def one_by_one(
    generate: Callable[..., Generation], requests: Iterable[Request | None]
) -> Iterator[tuple[int, Generation | EdgedcError]]:
    """`generate_as_they_come` for whoever can do one thing at a time."""
    for number, request in enumerate(request for request in requests if request):
        try:
            made: Generation | EdgedcError = generate(
                request.messages, max_tokens=request.max_tokens, on_text=request.on_text
            )
        except EdgedcError as error:
            made = error
        yield number, made


def check_context(prompt_tokens: int, max_tokens: int, context: int) -> None:
    """Raises ContextError when a prompt and its longest reply do not fit: nothing is ever cut to make it."""
    if prompt_tokens + max_tokens > context:
        raise ContextError(
            f"the prompt has {prompt_tokens} tokens and its reply may have {max_tokens}, more than the model's context "
            f"of {context} together: shorten the question or its premise, or lower --max-tokens"
        )


def encodable(text: str) -> str:
    """The text itself. Raises InputError when it holds half a character, which no tokenizer can read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        around = ascii(text[max(0, error.start - 10) : error.end + 10])
        raise InputError(f"not valid Unicode near {around}: remove the lone surrogate") from error
    return text
