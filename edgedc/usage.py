"""Tokens of calls, and who counted them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Source = Literal["server", "tokenizer", "estimate"]


@dataclass(frozen=True)
class Usage:
    """Tokens of one or more calls. `cached_tokens` are part of `input_tokens`.

    `source` says who counted: the server's `usage`, this machine's tokenizer, or an estimate from the text's length.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    source: Source = "tokenizer"

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def total_usage(parts: Iterable[Usage]) -> Usage:
    """The sum, with the weakest source among the parts."""
    rank: tuple[Source, ...] = ("server", "tokenizer", "estimate")
    parts = list(parts)
    return Usage(
        input_tokens=sum(u.input_tokens for u in parts),
        output_tokens=sum(u.output_tokens for u in parts),
        cached_tokens=sum(u.cached_tokens for u in parts),
        source=max((u.source for u in parts), key=rank.index, default="server"),
    )


def estimate_tokens(text: str) -> int:
    """About four characters of English are a token; used only where nobody counted, and marked as an estimate."""
    return math.ceil(len(text) / 4)
