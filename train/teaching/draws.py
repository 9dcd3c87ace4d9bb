"""A draw of a question, what all draws have in common, and the row that each becomes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from edgedc.decomposer import CUT, REFUSALS, read_reply
from edgedc.decomposition import Decomposition
from edgedc.errors import InputError
from edgedc.files import Row, key_of
from edgedc.generation import Generation, Message
from edgedc.prompts import Style, decompose_messages
from edgedc.tasks import Example


@dataclass(frozen=True)
class Form:
    """What all draws have in common. `style`, `temperature` and `max_tokens` are None where nobody is asked."""

    style: Style | None = None
    cap: int | None = None
    shots: int = 0
    temperature: float | None = None
    max_tokens: int | None = None

    def messages(self, example: Example) -> list[Message]:
        if self.style is None:
            return []
        return decompose_messages(example.question, example.premise, style=self.style, cap=self.cap, shots=self.shots)


@dataclass(frozen=True)
class Draw:
    """One call to make: the `number`-th draw of a question, from 0. `seed` is None where nothing is sampled."""

    key: str
    example: Example
    number: int
    seed: int | None
    messages: list[Message]


def draw_of(example: Example, teacher: Sequence[str], form: Form, number: int, seed: int | None) -> Draw:
    """A draw, its key made from everything that determines the reply, and from nothing else.

    Raises InputError for an empty question.
    """
    if not example.question.strip():
        raise InputError(f"question {example.id} is empty: take it out")
    messages = form.messages(example)
    own = example.decomposition and example.decomposition.texts
    asked: object = messages or [example.question, example.premise, own]
    key = key_of(teacher, asked, form.temperature, seed, number, form.max_tokens)
    return Draw(key, example, number, seed, messages)


def row_of(
    draw: Draw,
    form: Form,
    teacher: str,
    made: Generation | Decomposition,
    *,
    cost: float | None = None,
    simulated: bool = False,
) -> Row:
    """A row of `edgedc teach`; `made` is a model's reply, or a task's own decomposition."""
    reply = made if isinstance(made, Generation) else None
    decomposition = read_reply(made) if isinstance(made, Generation) else made
    return {
        "key": draw.key,
        "id": draw.example.id,
        "task": draw.example.task,
        "split": draw.example.split,
        "question": draw.example.question,
        "premise": draw.example.premise,
        **gold_of(draw.example),
        "draw": draw.number,
        "seed": draw.seed,
        "status": decomposition.status,
        "subquestions": decomposition.texts,
        "over_cap": decomposition.exceeds(form.cap),
        "outcome": _outcome(decomposition, reply, form.cap),
        "raw": decomposition.raw,
        "teacher": teacher,
        "prompt_style": form.style,
        "shots": form.shots,
        "cap": form.cap,
        "temperature": form.temperature,
        "max_tokens": form.max_tokens,
        "unsupported": list(reply.unsupported) if reply else [],
        "finish_reason": reply.finish_reason if reply else None,
        "usage": asdict(reply.usage) if reply else None,
        "cost": reply.booked if reply and cost is None else cost,
        "seconds": reply.total_s if reply else None,
        "bytes_sent": reply.bytes_sent if reply else 0,
        "simulated": simulated,
    }


def gold_of(example: Example) -> Row:
    """The part of a row that says what is right, and has no part in what the teacher is asked."""
    return {"answer": example.answer, "answers": [list(spans) for spans in example.answers]}


def _outcome(decomposition: Decomposition, reply: Generation | None, cap: int | None) -> str:
    """One word for counting; only `ok` is trained on."""
    if reply and reply.finish_reason in CUT:
        return "truncated"
    if reply and reply.finish_reason in REFUSALS:
        return "refused"
    if reply and not reply.text.strip():  # what stands before a server may make an empty reply of one that failed
        return "empty"
    if decomposition.status == "unparsed":
        return "unparsable"
    return "over_cap" if decomposition.exceeds(cap) else "ok"
