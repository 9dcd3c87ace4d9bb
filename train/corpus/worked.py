"""Rows of socratic GSM8K whose arithmetic can be done again, with other numbers."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from edgedc.errors import InputError
from edgedc.files import Row

from .english import in_words

NUMBER = re.compile(r"(?<![\w.,/:#])(\$?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?![\d/:]|\.\d|,\d|st\b|nd\b|rd\b|th\b)")
IN_WORDS = {in_words(value): Fraction(value) for value in (*range(2, 21), 30, 40, 50, 60, 70, 80, 90)}
WORD = re.compile(rf"(?<!-)\b({'|'.join(sorted(IN_WORDS, key=len, reverse=True))})\b(?!-)", re.IGNORECASE)

_CALCULATION = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
_ARITHMETIC = re.compile(r"[\d\s.+*/()-]+")
# Numbers that stand in no question and mean the same in all: parts, percents, clocks, calendars, dozens.
_CONVENTIONAL = "1 2 3 4 5 7 10 12 16 24 25 30 36 50 52 60 100 365 1000 0.5 0.25 0.1 0.01 1.5"
_CONVENTIONS = frozenset(map(Fraction, _CONVENTIONAL.split()))


@dataclass(frozen=True)
class Worked:
    """`calculations` are (expression, result) in the order of the worked answer; `answer` is the last number."""

    question: str
    subquestions: tuple[str, ...]
    calculations: tuple[tuple[str, str], ...]
    answer: str


def worked_in(row: Row, where: str) -> Worked:
    """Raises InputError, with the place `where`, for a row that is not of socratic GSM8K."""
    match row:
        case {"question": str() as question, "answer": str() as text} if " ** " in text and "####" in text:
            steps, _, answer = text.rpartition("####")
        case _:
            raise InputError(f"{where}: not a row of socratic GSM8K: a question, and an answer of  subquestion ** step")
    asked = [line.partition(" ** ")[0].strip() for line in steps.splitlines() if " ** " in line]
    question = " ".join(question.split())
    return Worked(question, tuple(asked), tuple(_CALCULATION.findall(steps)), answer.strip().replace(",", ""))


def value_of(text: str) -> Fraction | None:
    try:
        return Fraction(text.replace(",", "").replace("$", "").strip())
    except (ValueError, ZeroDivisionError):
        return None


def numbers_in(text: str) -> list[Fraction]:
    """The values of all numbers in a text, in digits or in words: two to twenty, and tens."""
    digits = [Fraction(whole.replace(",", "") + (rest or "")) for _, whole, rest in NUMBER.findall(text)]
    return digits + [IN_WORDS[word.lower()] for word in WORD.findall(text)]


def recomputed(
    worked: Worked, changed: Mapping[Fraction, Fraction], given: frozenset[Fraction]
) -> list[Fraction] | None:
    """The results of all calculations with the `changed` numbers of the question; `given` are all its numbers.

    None where that cannot be told: an expression that is no arithmetic, a result that does not follow from it, a number
    from nowhere, or an operand that may be either of two things.
    """
    after: dict[Fraction, Fraction] = {}  # old result to new one
    made: list[Fraction] = []
    for expression, stated in worked.calculations:
        if not _ARITHMETIC.fullmatch(expression) or not re.search(r"[\d.)]\s*[+*/-]", expression):
            return None
        try:
            tree = ast.parse(expression.strip(), mode="eval").body
            old = _evaluate(tree, {})
            operands = {Fraction(str(node.value)) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            if old != value_of(stated) or not all(_is_known(value, given, after) for value in operands):
                return None
            new = _evaluate(tree, {**changed, **after})
        except (SyntaxError, ValueError, ZeroDivisionError, TypeError):
            return None
        if old in changed or (old in given and new != old) or after.get(old, new) != new:
            return None  # the same number would mean two things
        after[old] = new
        made.append(new)
    return made


def _is_known(value: Fraction, given: frozenset[Fraction], results: Mapping[Fraction, Fraction]) -> bool:
    return value in given or value in results or value in _CONVENTIONS or value * 100 in given


def _evaluate(node: ast.expr, put_in: Mapping[Fraction, Fraction]) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as value):
            exact = Fraction(str(value))
            return put_in.get(exact, exact)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_evaluate(inner, put_in)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _evaluate(left, put_in), _evaluate(right, put_in)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.Div():
                    return a / b
    raise ValueError(ast.dump(node))
