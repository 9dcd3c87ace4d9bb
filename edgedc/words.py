"""Words of one-line messages."""

from typing import Literal

_ONE = {"": "", "are": " is", "were": " was"}


def counted(count: int, noun: str, verb: Literal["", "are", "were"] = "") -> str:
    """`1 call`, `2 calls`; with `are`: `1 call is`, `2 calls are`."""
    return f"1 {noun}{_ONE[verb]}" if count == 1 else f"{count} {noun}s {verb}".rstrip()
