"""A reply as it grows: which token is taken, what text it makes, when it ends, and how long that took."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from edgedc.backends.grammar import Admitted, ListGrammar
from edgedc.errors import EdgedcError
from edgedc.generation import Generation, OnText
from edgedc.ledger import Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Scores = npt.NDArray[np.floating]  # (vocabulary,), of the next token, before softmax

_HALF = "\ufffd"  # what bytes that are no whole character are decoded to
_FEW = 64


class Reply:
    """One reply as it grows, by the likeliest token that may follow.

    `take` is given the scores behind the last token, `generation` says what came of it. It ends with an end token or
    where the grammar has it whole (`stop`), or with max_tokens tokens (`length`). An end token counts as output, as it
    took the same work, and is not part of the text. `started` is time.perf_counter() at the start of the request.
    """

    def __init__(
        self,
        text_of: Callable[[Sequence[int]], str],
        ends: frozenset[int],
        prompt_tokens: int,
        max_tokens: int,
        grammar: ListGrammar | None,
        on_text: OnText | None,
        started: float,
    ) -> None:
        self._spelling = _Spelling(text_of)
        self._ends, self._prompt_tokens, self._max_tokens = ends, prompt_tokens, max_tokens
        self._admitted = grammar.begin() if grammar else None
        self._tried: tuple[Admitted | None, str, Admitted | None] = (None, "", None)
        self._on_text, self._started = on_text, started
        self._text, self._made, self._finish_reason = "", 0, "length"
        self._constrained = False  # whether the grammar refused a token, or ended a list that was to go on
        self._first_token_s: float | None = None

    def take(self, scores: "Scores") -> int | None:
        """The token to go on from, None when the reply is whole."""
        token = self._choose(scores)
        self._made += 1
        if self._first_token_s is None:
            self._first_token_s = time.perf_counter() - self._started
        if token in self._ends:
            self._finish_reason = "stop"
        else:
            self._say(self._spelling.add(token))
            if self._admitted and self._admitted.finished:
                self._finish_reason = "stop"
                self._constrained |= self._admitted.count > 0
            elif self._made < self._max_tokens:
                return token
        self._say(self._spelling.rest())
        return None

    def generation(self, *, cached: int) -> Generation:
        """`cached` of the prompt's tokens were known from a prompt before."""
        total_s = time.perf_counter() - self._started
        usage = Usage(self._prompt_tokens, self._made, cached_tokens=cached, source="tokenizer")
        return Generation(
            self._text, usage, self._first_token_s, total_s, self._finish_reason, constrained=self._constrained
        )

    def _choose(self, scores: "Scores") -> int:
        token = int(scores.argmax())
        if self._may_follow(token):
            return token
        self._constrained = True
        found = next(filter(self._may_follow, _likeliest_first(scores)), None)
        if found is not None:
            return found
        raise EdgedcError(f"no token of the model's vocabulary goes on from {self._text!r} as a list of subquestions")

    def _may_follow(self, token: int) -> bool:
        if self._admitted is None:
            return True
        if token in self._ends:
            return self._admitted.complete
        piece = self._spelling.peek(token)  # half a character stands for any that it may become
        return bool(piece) and self._with(self._admitted, piece) is not None

    def _with(self, admitted: Admitted, piece: str) -> Admitted | None:
        """What may follow is what is said next, as a rule: its text is looked at once."""
        if self._tried[0] is not admitted or self._tried[1] != piece:
            self._tried = (admitted, piece, admitted.take(piece))
        return self._tried[2]

    def _say(self, piece: str) -> None:
        if self._admitted and piece:
            self._admitted = self._with(self._admitted, piece) or self._admitted
            piece = self._admitted.text[len(self._text) :]
        self._text += piece
        if self._on_text and piece:
            self._on_text(piece)


def _likeliest_first(scores: "Scores") -> Iterator[int]:
    """Every token. One of the first few will nearly always do, and to sort all takes a small model's step."""
    few = scores.argpartition(-min(_FEW, len(scores)))[-_FEW:]
    yield from few[scores[few].argsort()[::-1]].tolist()
    yield from scores.argsort()[::-1].tolist()


class _Spelling:
    """The text of tokens as they come, in whole characters.

    A character may be spread over tokens, and a token may read otherwise at the start of a text (SentencePiece leaves
    out its space), so each is decoded behind the tokens that the last text came from: the window.
    """

    def __init__(self, text_of: Callable[[Sequence[int]], str]) -> None:
        self._text_of = text_of
        self._window: list[int] = []
        self._old = 0  # tokens of the window whose text has been given
        self._given = 0  # characters of the window's text that have been given
        self._peeked: tuple[int, str] | None = None  # a token, and the window's text with it

    def peek(self, token: int) -> str:
        """What `add` would give, and U+FFFD for what is not a whole character yet."""
        text = self._text_of([*self._window, token])
        self._peeked = (token, text)
        return text[self._given :]

    def add(self, token: int) -> str:
        self._window.append(token)
        text = self._peeked[1] if self._peeked and self._peeked[0] == token else self._text_of(self._window)
        self._peeked = None
        whole = text.rstrip(_HALF)
        piece = whole[self._given :]
        if piece and whole == text:
            self._window = self._window[self._old :]
            self._old = len(self._window)
            self._given = len(self._text_of(self._window))
        else:
            self._given = max(self._given, len(whole))
        return piece

    def rest(self) -> str:
        """What was held back for the rest of a character that never came."""
        return self._text_of(self._window)[self._given :]
