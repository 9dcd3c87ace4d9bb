"""When a solver's text gives the right answer: strict, and one rule for each kind of answer."""

import re
import unicodedata
from decimal import Decimal

from edgedc.prompts import final_answer

# A number of its own: not the 2 of `x2`, the -5 of `3-5`, the 1 of `1.234,56` or of `1e3`; thousands may be parted.
_NUMBER = re.compile(
    r"(?<![\w.,])([-−–]?)\\?[$€£¥₹]?([-−–]?)((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?![\d,.]*\d|[eE][-+]?\d)",
    re.ASCII,
)
# LaTeX's `1{,}080`, `1,\!080` and `1\,080`, and the narrow spaces that never part two numbers
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\[,;]|[\u2009\u202f])(?=\d{3}(?!\d))")
# LaTeX's, around an answer or its unit
_WRAPPED = re.compile(r"\\(?:boxed|text|textbf|mathbf|mathrm) *\{([^{}]*)\}")
# Of a text, signs and points belong to its numbers; all other marks are left out.
_MARK = re.compile(r"((?<=\d)[./](?=\d)|(?<!\w)\.(?=\d))|(?<!\w)([-−–])(?=[\\$€£¥₹.]*\d)|[^\w\s]")
_YES_NO = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}


def answer_in(text: str) -> str:
    """The final answer in a solver's text, out of LaTeX's marks and boxes."""
    said, boxed = re.sub(r"\\[\[\]()]", "", final_answer(text)).strip(), ""
    while said != boxed:  # one within another
        said, boxed = _WRAPPED.sub(r"\1", said), said
    return said


def number_in(text: str) -> Decimal | None:
    """The only number in the text, or the only one behind its last `=`; None where there is none, or a choice of them.

    Commas between thousands, currency signs and `%` are not part of it: `$1,080.00` and `1080 dollars` are equal.
    """
    _, _, result = _THOUSANDS.sub(",", text).rpartition("=")
    numbers = {
        Decimal(f"{'-' if before or behind else ''}{digits.replace(',', '')}")
        for before, behind, digits in _NUMBER.findall(result)
    }
    return numbers.pop() if len(numbers) == 1 else None


def gives_number(text: str, answer: str) -> bool:
    """Whether the final answer in the text is the number of `answer`.

    Where both have words as well, one has all those of the other: `18` and `18 dollars` are equal, `5 May` and `5 June`
    are not.
    """
    said, expected = answer_in(text), number_in(answer)
    if expected is None or number_in(said) != expected:
        return False
    ours, theirs = _words(said), _words(answer)
    return ours <= theirs or theirs <= ours


def gives_yes_no(text: str, answer: str) -> bool:
    """Whether the first word of the final answer in the text says `answer`, which is `yes` or `no`, in any words."""
    word, expected = re.match(r"\W*(\w+)", answer_in(text)), _YES_NO.get(answer.casefold())
    return word is not None and expected is not None and _YES_NO.get(word[1].lower()) == expected


def gives_text(text: str, answer: str) -> bool:
    """Whether the final answer in the text is `answer`, but for case, punctuation, articles and white space."""
    return _plain(answer) != "" and _plain(answer_in(text)) == _plain(answer)


def _words(text: str) -> set[str]:
    """Those without a digit."""
    return {word for word in _plain(text).split() if not re.search(r"\d", word)}


def _plain(text: str) -> str:
    known = unicodedata.normalize("NFKC", text).casefold().replace("⁄", "/")  # ½ has become 1⁄2
    words = _MARK.sub(lambda mark: mark[1] or ("-" if mark[2] else " "), known).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))
