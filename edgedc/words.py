"""Words of one-line messages."""


def counted(count: int, noun: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{count} {noun}{'s' * (count != 1)}"
