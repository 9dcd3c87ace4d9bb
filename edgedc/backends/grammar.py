"""The only texts that a decomposer may write where it is held to them, checked as they come.

This is no mask over the vocabulary: a token is chosen as ever, its text is tried here, and only when it is refused are
the next likeliest ones tried. So any engine can use it, and it costs microseconds a token.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from edgedc.decomposition import NOT_NEEDED, parse

_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"[^\W\d_]")
_PHRASE = 8  # words


@dataclass(frozen=True)
class ListGrammar:
    """What `render` writes, one subquestion a line: `1. ...`, at most `cap` of them (None: no limit), none of them
    twice, and no few words three times running; or `No decomposition`."""

    cap: int | None = None

    def __post_init__(self) -> None:
        if self.cap is not None and self.cap < 1:
            raise ValueError(f"a list of at most {self.cap} subquestions: give at least 1, or None")

    def begin(self) -> "Admitted":
        return Admitted(self.cap)


class Admitted(NamedTuple):  # one is made for every token: a frozen dataclass takes three times as long
    """A text that has been admitted so far; `take` gives the longer one.

    `above` are its whole lines, `lines` of them, and `line` the one that is being written. `asked` is what the whole
    ones ask. `finished`: it is whole, and nothing may follow. `repeats`: its line would end here as an earlier one, so
    that another is to be written in its place.
    """

    cap: int | None
    above: str = ""
    lines: int = 0
    line: str = ""
    finished: bool = False
    asked: frozenset[str] = frozenset()
    repeats: bool = False

    @property
    def text(self) -> str:
        """Without white space at its end, which belongs to what may follow."""
        return "\n".join(filter(None, (self.above, self.line.rstrip(" "))))

    @property
    def complete(self) -> bool:
        """Whether the text may end here. It is then never `unparsed`, and never has more than `cap` subquestions."""
        whole = self.finished or self._is_item() or (self.lines > 0 and not self.line)
        return whole and ("\n" in self.text or parse(self.text).status != "unparsed")

    @property
    def in_item(self) -> bool:
        """Whether what follows is part of a subquestion, and not of the mark before it."""
        return len(self.line) >= len(self._mark) - 1

    @property
    def is_old(self) -> bool:
        """Whether the line, as it stands, asks what an earlier one does."""
        return self._question() in self.asked

    @property
    def may_be_old(self) -> bool:
        """Whether the line may still become an earlier one."""
        if len(self.line) <= len(self._mark):
            return self.lines > 0
        begun = self._question()
        return any(old.startswith(begun) for old in self.asked)

    def take(self, piece: str) -> "Admitted | None":
        """The text with this behind it, up to where that finishes it; None where it is not admitted."""
        now = self
        for k, part in enumerate(piece.split("\n")):
            if k:
                last = now.lines + 1 == now.cap
                if not now._is_item() or (last and not now.complete):
                    return None
                if now.is_old:
                    return now._replace(repeats=True)
                now = Admitted(now.cap, now.text, now.lines + 1, finished=last, asked=now.asked | {now._question()})
            if now.finished:
                return now
            now = Admitted(now.cap, now.above, now.lines, now.line + part, asked=now.asked)
            if not now.lines and now.line.startswith(NOT_NEEDED):
                return now._replace(line=NOT_NEEDED, finished=True)
            if not now._may_stand():
                return None
            if part.endswith("?") and now.is_old:
                return now._replace(repeats=True)
        return now

    @property
    def _mark(self) -> str:
        return f"{self.lines + 1}. "

    def _question(self) -> str:
        return self.line[len(self._mark) :].rstrip(" ").casefold()

    def _is_item(self) -> bool:
        mark = self._mark
        return len(self.line) > len(mark) and self.line.startswith(mark)

    def _may_stand(self) -> bool:
        """Whether the line that is being written begins one that `render` writes."""
        if not self._is_item():
            return self._mark.startswith(self.line) or (not self.lines and NOT_NEEDED.startswith(self.line))
        listed = self.line.split()
        words = " ".join(listed)
        if self.line not in (words, words + " ") or _circles(listed):
            return False
        if self.lines or self.cap is None or not _DIGIT.search(words, len(self._mark)):
            return True
        return len(parse(words).subquestions) <= self.cap  # a first line may read as a list by itself: 1. Who? 2. When?


def _circles(words: list[str]) -> bool:
    """Whether they end in the same few words three times running, as small models go on saying. Sums may: 5 + 5 + 5."""
    if words.count(words[-1]) < 3:  # as in nearly every line
        return False
    for n in range(1, min(_PHRASE, len(words) // 3) + 1):
        if words[-n:] == words[-2 * n : -n] == words[-3 * n : -2 * n] and any(map(_LETTER.search, words[-n:])):
            return True
    return False
