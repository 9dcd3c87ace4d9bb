"""Text tables for the screen. One function for every verb."""

import re
from collections.abc import Sequence

Cell = str | int | float | None

_NUMBER = re.compile(r"[<>~+-]?\$?\d")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")  # a folder's name may break lines, or steer the terminal


def table(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Columns of plain text: numbers and unknowns to the right, words to the left, `-` for None; no trailing newline.

    A header may have several lines. Integers get thousands separators and floats three significant digits; give a
    string where a cell needs another form: one that starts like a number (`92 %`, `$0.10`) aligns as one.
    """
    texts = [[_text(cell) for cell in row] for row in rows]
    head = [header.split("\n") for header in headers]
    height = max((len(lines) for lines in head), default=0)
    head = [[""] * (height - len(lines)) + lines for lines in head]
    columns = [[*lines, *(row[k] for row in texts)] for k, lines in enumerate(head)]
    padded = []
    for column in columns:
        width = max(len(text) for text in column)
        cells = [text for text in column[height:] if text != "-"]
        right = len(column) > height and all(_NUMBER.match(text) for text in cells)
        column = [text.rjust(width) if right else text.ljust(width) for text in column]
        padded.append([*column[:height], "-" * width, *column[height:]])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*padded, strict=True))


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, str):
        return _CONTROL.sub(" ", cell)
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
