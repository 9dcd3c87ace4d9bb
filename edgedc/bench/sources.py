"""Where decompositions come from besides a model: a file of them, or the ones that the task itself knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgedc.answers import Mode
from edgedc.bench.systems import System
from edgedc.decomposer import Decomposer, Generate
from edgedc.decomposition import decomposition_of, render
from edgedc.errors import InputError
from edgedc.files import Row, key_of, numbered_rows, sha256_of
from edgedc.generation import Generation, Message, OnText
from edgedc.prompts import MAX_SUBQUESTIONS, Style, decompose_messages
from edgedc.tasks import Example
from edgedc.usage import Usage

_STYLE: Style = "instruct-1"


@dataclass(frozen=True)
class Said:
    """A recorded reply of a decomposer; `cut` where it stopped at its limit, or was refused."""

    text: str
    cut: bool = False


def gold_system(examples: Sequence[Example], mode: Mode, cap: int | None = MAX_SUBQUESTIONS) -> System:
    """The known decompositions as a decomposer. Raises InputError where one is not known."""
    said = {}
    for example in examples:
        if example.decomposition is None:
            raise InputError(f"{example.task} {example.id}: its decomposition is not known, so there is no gold one")
        said[words_of(example.question)] = Said(render(example.decomposition))
    return System("gold", mode, _decomposer("gold", said, examples, cap), "gold")


def file_system(path: Path, examples: Sequence[Example], mode: Mode, cap: int | None = MAX_SUBQUESTIONS) -> System:
    """The decompositions in a file. Raises InputError where a question has none there."""
    said = read_said(path)
    missing = [example for example in examples if words_of(example.question) not in said]
    if missing:
        raise InputError(
            f"{path}: no decomposition of {len(missing)} of the {len(examples)} questions, the first: "
            f"{missing[0].question[:60]!r}: choose the questions that were decomposed, with --task, --data and --limit"
        )
    return System(path.stem, mode, _decomposer(path.stem, said, examples, cap), f"recorded {sha256_of(path)}")


def read_said(path: Path) -> dict[str, Said]:
    """By the question's words: rows of `edgedc decompose` and `teach` (`question`, `raw`), or `problem`, `questions`.

    Raises InputError, with the line, for any other row.
    """
    said: dict[str, Said] = {}
    for number, row in numbered_rows(path):
        question, text = row.get("question", row.get("problem")), _text(row)
        if not isinstance(question, str) or not question.strip() or text is None:
            raise InputError(
                f"{path}:{number}: no decomposition: a row has `question` (or `problem`), and its decomposition as "
                "`raw`, `subquestions` or `questions`"
            )
        said[words_of(question)] = Said(text, row.get("status") == "unparsed")
    if not said:
        raise InputError(f"{path}: no decompositions in it")
    return said


def remembered(decomposer: Decomposer) -> Decomposer:
    """The same decomposer, which is asked only once for the same question; for runs that put it to several solvers."""
    known: dict[str, Generation] = {}

    def generate(messages: Sequence[Message], *, max_tokens: int, on_text: OnText | None = None) -> Generation:
        key = key_of(messages, max_tokens)
        if key not in known:
            known[key] = decomposer.generate(messages, max_tokens=max_tokens, on_text=on_text)
        elif on_text:
            on_text(known[key].text)
        return known[key]

    return replace(decomposer, generate=generate)


def _text(row: Row) -> str | None:
    match row:
        case {"raw": str() as text} | {"questions": str() as text}:
            return text
        case {"subquestions": list() as parts}:
            texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
            known = [text for text in texts if isinstance(text, str)]
            return render(decomposition_of(known)) if len(known) == len(texts) else None
    return None


def _decomposer(name: str, said: Mapping[str, Said], examples: Sequence[Example], cap: int | None) -> Decomposer:
    """It is asked as any other is, and looks the request up; so it takes the same way through the pipeline."""
    replies = {
        key_of(decompose_messages(e.question, e.premise, style=_STYLE, cap=cap)): said[words_of(e.question)]
        for e in examples
    }
    return Decomposer(name, "local", _looking_up(replies), _STYLE, cap)


def _looking_up(replies: Mapping[str, Said]) -> Generate:
    def generate(
        messages: Sequence[Message],
        *,
        max_tokens: int,  # noqa: ARG001 (the reply is what it was)
        on_text: OnText | None = None,
    ) -> Generation:
        found = replies[key_of(messages)]
        if on_text:
            on_text(found.text)
        return Generation(found.text, Usage(0, 0), None, 0.0, "length" if found.cut else "stop")

    return generate


def words_of(question: str) -> str:
    """The question without white space, in which recordings differ from the data."""
    return "".join(question.split())
