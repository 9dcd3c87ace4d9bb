"""When a solver's text gives the right answer: strict, and one rule for each kind of answer."""

import re
import unicodedata
from decimal import Decimal

from edgedc.prompts import final_answer

# A number of its own: not the 2 of `x2`, and not the 5 of `3-5`; thousands may be parted by commas.
_NUMBER = re.compile(
    r"(?<![\w.,])([-−]?)[$€£]?([-−]?)((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?![\d,]*\d)", re.ASCII
)
_YES_NO = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}


def number_in(text: str) -> Decimal | None:
    """The only number in the text, or the only one behind its last `=`; None where there is none, or a choice of them.

    Commas between thousands, currency signs and `%` are not part of it: `$1,080.00` and `1080 dollars` are equal.
    """
    _, _, result = text.rpartition("=")
    numbers = {
        Decimal(f"{'-' if before or behind else ''}{digits.replace(',', '')}")
        for before, behind, digits in _NUMBER.findall(result)
    }
    return numbers.pop() if len(numbers) == 1 else None


def gives_number(text: str, answer: str) -> bool:
    """Whether the final answer in the text is the number of `answer`."""
    expected = number_in(answer)
    return expected is not None and number_in(final_answer(text)) == expected


def gives_yes_no(text: str, answer: str) -> bool:
    """Whether the first word of the final answer in the text says `answer`, which is `yes` or `no`."""
    word = re.match(r"\W*(\w+)", final_answer(text))
    return word is not None and _YES_NO.get(word[1].lower()) == answer


def gives_text(text: str, answer: str) -> bool:
    """Whether the final answer in the text is `answer`, but for case, punctuation, articles and white space."""
    return _plain(answer) != "" and _plain(final_answer(text)) == _plain(answer)


def _plain(text: str) -> str:
    words = re.sub(r"[^\w\s]", " ", unicodedata.normalize("NFKC", text).casefold()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))
