"""One-to-one pairs of two lists with the largest sum of scores."""

import math
from collections.abc import Sequence


def best_pairs(scores: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """(row, column) pairs, in order of the rows, of every row or of every column, whichever are fewer.

    The Hungarian method with potentials (Kuhn 1955; Jonker and Volgenant 1987): time rows^2 x columns.
    """
    if not scores or not scores[0]:
        return []
    if len(scores) > len(scores[0]):
        turned = [list(column) for column in zip(*scores, strict=True)]
        return sorted((row, column) for column, row in best_pairs(turned))
    rows, columns = len(scores), len(scores[0])
    # 1-based, so that 0 stands for "none yet"; what is minimised is the negative score
    row_price, column_price = [0.0] * (rows + 1), [0.0] * (columns + 1)
    row_of = [0] * (columns + 1)
    for row in range(1, rows + 1):
        row_of[0], column = row, 0
        slack, before, seen = [math.inf] * (columns + 1), [0] * (columns + 1), [False] * (columns + 1)
        while row_of[column]:
            seen[column] = True
            current, least, nearest = row_of[column], math.inf, 0
            for other in range(1, columns + 1):
                if seen[other]:
                    continue
                reduced = -scores[current - 1][other - 1] - row_price[current] - column_price[other]
                if reduced < slack[other]:
                    slack[other], before[other] = reduced, column
                if slack[other] < least:
                    least, nearest = slack[other], other
            for other in range(columns + 1):
                if seen[other]:
                    row_price[row_of[other]] += least
                    column_price[other] -= least
                else:
                    slack[other] -= least
            column = nearest
        while column:
            row_of[column] = row_of[before[column]]
            column = before[column]
    return sorted((row_of[column] - 1, column - 1) for column in range(1, columns + 1) if row_of[column])
