"""The grammar admits what `render` writes, token by token, and no text that is not a list when it ends."""

import re
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedc.backends.grammar import Admitted, ListGrammar
from edgedc.decomposition import NOT_NEEDED, decomposition_of, parse, render

CAPS = st.none() | st.integers(1, 4)
# Texts as they come, and those that look like the marks around them.
LINES = st.text(min_size=1) | st.sampled_from(
    ["Who?", "A 2. B", "A? 2. B? 3. C?", "No decomposition", "1. x", "#1 + #2", "** **", "12) a", "x </think> 2. y"]
)
PIECES = st.text(max_size=4) | st.sampled_from(
    [
        "1",
        ".",
        " ",
        "1. ",
        "\n",
        "\n2. ",
        "2. ",
        "\n3.",
        " 4) ",
        "Who",
        "?",
        "No",
        " decomposition",
        "\n\n",
        "\u2028",
        "é",
    ]
)


def admitted(cap: int | None, pieces: Iterable[str]) -> Admitted | None:
    now: Admitted | None = ListGrammar(cap).begin()
    for piece in pieces:
        now = now.take(piece) if now else None
    return now


def repeating(texts: list[str]) -> bool:
    """Whether one asks, up to a question mark or its end, what one before it asks; or has a word three times."""
    if any(max(Counter(text.split()).values(), default=0) > 2 for text in texts):
        return True
    plain = [text.casefold() for text in texts]
    begun = [{text[: k + 1] for k, letter in enumerate(text) if letter == "?"} | {text} for text in plain]
    return any(begun[k] & set(plain[:k]) for k in range(len(plain)))


@given(st.lists(LINES, max_size=5), st.data())
def test_every_beginning_of_a_rendered_list_is_admitted_however_it_is_cut(
    texts: list[str], data: st.DataObject
) -> None:
    made = decomposition_of(texts)
    text = render(made)
    if repeating(made.texts):
        return
    if text.startswith("["):  # a single subquestion that looks like a list is no numbered list
        return
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    inline = len(parse(text.partition("\n")[0]).subquestions)  # `1. A? 2. B?` in the first line counts as two
    for cap in (None, max(len(made.subquestions), inline, 1)):
        whole = admitted(cap, pieces)
        assert whole is not None
        assert whole.text == text
        assert whole.complete
    for end in range(len(text)):
        part = admitted(None, [text[:end]])
        assert part is not None
        assert part.text == text[:end].rstrip()


@given(CAPS, st.lists(PIECES, max_size=14))
def test_what_is_complete_is_a_list_of_at_most_cap(cap: int | None, pieces: list[str]) -> None:
    now = ListGrammar(cap).begin()
    for piece in pieces:  # as a model is held to it: what is refused is not written
        now = now.take(piece) or now
        made = parse(now.text)
        assert not made.exceeds(cap)
        if now.complete:
            assert made.status != "unparsed"
            assert now.text == now.text.strip()
            assert re.match(rf"(1\. \S|{NOT_NEEDED}\Z)", now.text)


@given(st.integers(1, 4), st.lists(PIECES, max_size=6))
def test_nothing_is_written_beyond_a_whole_list(cap: int, pieces: list[str]) -> None:
    text = "\n".join(f"{k}. Why {k}?" for k in range(1, cap + 1))
    for whole in (text, NOT_NEEDED):
        assert admitted(cap, [f"{whole}\n{cap + 1}. And?", *pieces]) == admitted(cap, [whole + "\n"])
        assert admitted(cap, [whole + "\n"]).text == whole
        assert admitted(cap, [whole + "\n"]).finished
    assert not admitted(cap, [text]).finished  # the last line may go on


@pytest.mark.parametrize(
    ("cap", "text"),
    [
        (3, "Sure! 1. Who?"),
        (3, "2. Who?"),
        (3, "1) Who?"),
        (3, "1.  Who?"),
        (3, "1. Who?\tWhen?"),
        (3, "1. Who?\n\n2. When?"),
        (3, "1. Who?\n3. When?"),
        (3, "1. Who?\nWhen?"),
        (3, "- Who?"),
        (3, '["Who?"]'),
        (3, "no decomposition"),
        (3, "1. \n2. Who?"),
        (2, "1. Who? 2. When? 3. Where?"),
        (1, "1. Who? 2. When?"),
    ],
)
def test_other_forms_are_refused(cap: int, text: str) -> None:
    assert admitted(cap, text) is None
    assert admitted(cap, [text]) is None


@pytest.mark.parametrize("text", ["", "1", "1.", "1. ", "No", "1. Who?\n2", "1. Who?\n2. "])
def test_what_is_begun_may_not_end(text: str) -> None:
    now = admitted(3, [text])
    assert now is not None
    assert not now.complete


def test_a_list_may_end_behind_its_line_and_without_one() -> None:
    for text in ("1. Who?", "1. Who? ", "1. Who?\n"):
        now = admitted(3, [text])
        assert now is not None
        assert (now.text, now.complete, now.finished) == ("1. Who?", True, False)


@pytest.mark.parametrize(
    ("pieces", "repeats"),
    [
        (["1. Who?\n2. Who", "?"], True),
        (["1. Who?\n2. who?"], True),
        (["1. Who?\n2. Who?\n3. When?"], True),
        (["1. Add them\n2. Add them", "\n"], True),
        (["1. Add them\n2. Add them"], False),  # as it may go on
        (["1. Add them\n2. Add them", " up\n"], False),
        (["1. Who?\n2. Who", " else?"], False),
        (["1. Who else?\n2. Who?"], False),
    ],
)
def test_a_line_that_is_there_is_seen_where_it_ends(pieces: list[str], repeats: bool) -> None:
    now = admitted(None, pieces)
    assert now is not None
    assert now.repeats is repeats


@pytest.mark.parametrize(
    ("text", "goes_on"),
    [
        ("1. Is it a ping ping", True),
        ("1. Is it a ping ping ping", False),
        ("1. Is it of the day of the day of the", True),
        ("1. Is it of the day of the day of the day", False),
        ("1. Is it 5 + 5 + 5 + 5", True),
        ("1. Who?\n2. Is it a ping ping ping", False),
    ],
)
def test_a_line_does_not_go_in_circles(text: str, goes_on: bool) -> None:
    assert (admitted(None, re.findall(r"\S+\s*", text)) is not None) is goes_on


def test_a_list_of_none_is_no_list() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ListGrammar(0)
