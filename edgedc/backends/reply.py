"""A reply as it grows: which token is taken, what text it makes, when it ends, and how long that took."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from edgedc.backends.grammar import Admitted, ListGrammar
from edgedc.errors import EdgedcError
from edgedc.generation import Generation, OnText
from edgedc.usage import Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Scores = npt.NDArray[np.floating]  # (vocabulary,), of the next token, before softmax

_HALF = "\ufffd"  # what bytes that are no whole character are decoded to
_FEW = 64
_NEAREST = 8
_TURNS = 16  # times that a reply is turned from what it has asked already; after that its list ends
_FAR = -7.0  # log of how likely a way is, against the one that was taken: what is less likely is no way


class Turned(Enum):
    """What `Reply.take` gives where the reply goes on otherwise than it did: anew behind `Reply.tokens`."""

    TURNED = "turned"


TURNED = Turned.TURNED


class Reply:
    """One reply as it grows, by the likeliest token that may follow.

    `take` is given the scores behind the last token, `generation` says what came of it. It ends with an end token or
    where the grammar has it whole (`stop`), or with max_tokens tokens (`length`). An end token counts as output, as it
    took the same work, and is not part of the text. `started` is time.perf_counter() at the start of the request.

    A grammar admits no subquestion twice, and small models would often ask the same again. Kept from its last token,
    they would only add to it; so the whole line is taken back, as far as the place where another way was nearest to
    being chosen: the first step of Lawler's search for the next best (1972, doi
    10.1287/mnsc.18.7.401). What is taken back is not heard, and does not count as output.

    `tokens` is what stands, without an end token.
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
        self._text_of, self._grammar, self._ends = text_of, grammar, ends
        self._prompt_tokens, self._max_tokens = prompt_tokens, max_tokens
        self._on_text, self._started = on_text, started
        self._heard = 0  # characters that on_text was given
        self._ended, self._finish_reason = False, "length"
        self._constrained = False  # whether the grammar refused a token, or ended a list that was to go on
        self._first_token_s: float | None = None
        self._near: dict[int, dict[int, float]] = {}  # by their places, tokens that were near to being taken
        self._refused: dict[int, set[int]] = {}  # and those that led to what had been asked
        self._turns = 0
        self._go_back(0)

    def take(self, scores: "Scores") -> int | Turned | None:
        """The token to go on from; TURNED when it is not behind those that there were; None when the reply is whole."""
        token, place = self._choose(scores), len(self.tokens)
        if self._first_token_s is None:
            self._first_token_s = time.perf_counter() - self._started
        after = self._after(token)
        if after and after.lines:  # the first line is never taken back
            self._near[place] = _near(scores, token, self._ends)
        if not self._asks_again(token):
            return self._go_on(token)
        self._constrained = True
        self._refused.setdefault(place, set()).add(token)
        self._turns += 1
        if self._turns <= _TURNS:
            return self._turn()
        self._go_back(self._line - 1)
        self._finish("stop")
        return None

    def _turn(self) -> Turned | None:
        """To another way in the line, from where that was nearest; where there is none, the list ends above it."""
        tokens, first, above = self.tokens, self._line - 1, self._admitted and self._admitted.above
        self._go_back(first)
        nearest, turning = _FAR, first
        instead: int | None = None
        lost = 0.0  # by earlier turns in this line
        for place in range(first, len(tokens) + 1):
            scores, taken = self._near[place], tokens[place : place + 1]
            old = {*taken, *self._refused.get(place, ())}
            best = max(scores[token] for token in old) - lost  # to be as near as the line that was written
            others: Iterable[int] = ()
            if place == first:  # above this line nothing can be taken back, but the list may end there
                others = self._ends if self._text == above else ()
            elif self._admitted and self._admitted.in_item:
                others = (token for token, score in scores.items() if score - best >= nearest)
            other = next((token for token in others if token not in old and self._leads_on(token)), None)
            if other is not None and scores[other] - best >= nearest:
                nearest, turning, instead = scores[other] - best, place, other
            for token in taken:
                lost = scores[token] - best
                self._add(token)
        self._go_back(turning)
        if instead is None:
            self._finish("stop")
            return None
        self._refused = {k: tokens for k, tokens in self._refused.items() if k <= turning}
        self._refused.setdefault(turning, set()).update(tokens[turning : turning + 1])
        return None if self._go_on(instead) is None else TURNED

    def generation(self, *, cached: int) -> Generation:
        """`cached` of the prompt's tokens were known from a prompt before."""
        total_s = time.perf_counter() - self._started
        made = len(self.tokens) + self._ended
        usage = Usage(self._prompt_tokens, made, cached_tokens=cached, source="tokenizer")
        return Generation(
            self._text, usage, self._first_token_s, total_s, self._finish_reason, constrained=self._constrained
        )

    def _go_on(self, token: int) -> int | None:
        self._ended = token in self._ends
        if not self._ended:
            self._add(token)
            if not (self._admitted and self._admitted.finished):
                if len(self.tokens) < self._max_tokens:
                    return token
                self._finish("length")
                return None
            self._constrained |= self._admitted.lines > 0
        self._finish("stop")
        return None

    def _go_back(self, place: int) -> None:
        """To where the reply had so many tokens."""
        tokens: list[int] = self.tokens[:place] if place else []
        self.tokens: list[int] = []
        self._line = 0  # how many of them stand before the line that is being written
        self._text = ""
        self._spelling = _Spelling(self._text_of)
        self._admitted = self._grammar.begin() if self._grammar else None
        self._tried: tuple[Admitted | None, str, Admitted | None] = (None, "", None)
        for token in tokens:
            self._add(token)

    def _add(self, token: int) -> None:
        lines = self._admitted.lines if self._admitted else 0
        self.tokens.append(token)
        self._say(self._spelling.add(token))
        if self._admitted and self._admitted.lines > lines:
            self._line = len(self.tokens)

    def _finish(self, reason: str) -> None:
        self._finish_reason = reason
        self._say(self._spelling.rest())
        self._tell()

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

    def _after(self, token: int) -> Admitted | None:
        """The text with a token that may follow, and was the last one to be looked at."""
        return self._tried[2] if self._admitted and token not in self._ends else self._admitted

    def _asks_again(self, token: int) -> bool:
        """Likewise of such a token."""
        after = self._after(token)
        return after is not None and (after.is_old if token in self._ends else after.repeats)

    def _leads_on(self, token: int) -> bool:
        return self._may_follow(token) and not self._asks_again(token)

    def _with(self, admitted: Admitted, piece: str) -> Admitted | None:
        """What may follow is what is said next, as a rule: its text is looked at once."""
        if self._tried[0] is not admitted or self._tried[1] != piece:
            self._tried = (admitted, piece, admitted.take(piece))
        return self._tried[2]

    def _say(self, piece: str) -> None:
        if self._admitted and piece:
            self._admitted = self._with(self._admitted, piece) or self._admitted
            self._text = self._admitted.text
        else:
            self._text += piece
        if not (self._admitted and self._on_text and self._admitted.may_be_old):  # else it may yet be taken back
            self._tell()

    def _tell(self) -> None:
        piece = self._text[self._heard :]
        if self._on_text and piece:
            self._heard = len(self._text)
            self._on_text(piece)


def _likeliest_first(scores: "Scores") -> Iterator[int]:
    """Every token. One of the first few will nearly always do, and to sort all takes a small model's step."""
    few = scores.argpartition(-min(_FEW, len(scores)))[-_FEW:]
    yield from few[scores[few].argsort()[::-1]].tolist()
    yield from scores.argsort()[::-1].tolist()


def _near(scores: "Scores", taken: int, ends: Iterable[int]) -> dict[int, float]:
    """The likeliest few tokens that are not _FAR from the one that was taken, in order; that one; and the ends."""
    some = (scores >= scores[taken] + _FAR).nonzero()[0]
    if len(some) > 1:  # as a rule a model is sure of what it writes
        some = some[scores[some].argsort()[: -_NEAREST - 1 : -1]]
    return {token: float(scores[token]) for token in (*some.tolist(), taken, *ends)}


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
