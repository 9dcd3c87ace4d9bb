"""Compares an exported artifact with the model it was made from, through the backends that ship."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedc.backends import open_backend
from edgedc.bundle import Artifact, Format, Manifest
from edgedc.decomposition import parse
from edgedc.errors import EdgedcError
from edgedc.generation import Message
from edgedc.prompts import MAX_TOKENS_DECOMPOSE, decompose_messages
from edgedc.tasks import Selection, load_examples

from .child import in_child

PROMPTS = 64

# Up to this size more threads gain nothing, and where other programs use the cores they wait for each other for ages.
ONE_THREAD_BYTES = 50_000_000

# The share of prompts whose greedy text, and whose decomposition, must equal the model's. Where nothing was quantised
# only near-ties between two tokens may fall the other way; quantising moves more of them. Token ids must all be equal.
THRESHOLDS = {
    "fp32": 0.98,
    "f32": 0.98,
    "f16": 0.98,
    "q8_0": 0.90,
    "q6_k": 0.85,
    "q5_k_m": 0.80,
    "q5_k_s": 0.80,
    "q5_1": 0.80,
    "q5_0": 0.80,
    "q4_k_m": 0.75,
    "q4_k_s": 0.70,
    "q4_1": 0.70,
    "q4_0": 0.70,
    "iq4_nl": 0.70,
    "iq4_xs": 0.70,
    "q3_k_l": 0.60,
    "q3_k_m": 0.60,
    "q3_k_s": 0.50,
    "q2_k": 0.50,
}

# Only tokenized: what tokenizers are known to disagree on.
ODD_STRINGS = (
    " ",
    "🙂👩‍👩‍👧 €5 for ½ m² — naïve Ünïcödé",
    "cafe\u0301 and café, Å and Å",  # the same letters, composed and not
    "many   spaces      here\u00a0and\u3000there ",
    "1234567890 3.14159 1,000,000 -5e-3 ٣٤٥ 二十",
    "\ttabs\t\tand\n\n\nlines\r\n  indented\r",
    "<|end|><|user|> <|im_end|> <|endoftext|> </s> <s> [INST] <unk>",
    "<| end |> <|END|> <|end| >",
    "שלום עולם، مرحبا بالعالم",
    "I'LL we've don't '' ''s ’s",
    "x\u0000y\u200b\u200dz\ufeff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
)


@dataclass(frozen=True)
class Prompt:
    """`label` is what a report calls it; an odd string is only tokenized."""

    label: str
    messages: list[Message]
    generate: bool = True


@dataclass(frozen=True)
class Observation:
    ids: tuple[int, ...]
    text: str = ""


@dataclass(frozen=True)
class Gate:
    """How an artifact compared: shares between 0 and 1, of all prompts for token ids, of the questions for the rest.

    `first_difference` names the first prompt and position that differ, in what failed if anything did.
    """

    questions: int
    odd_strings: int
    token_ids: float
    text: float
    decomposition: float
    threshold: float
    passed: bool
    first_difference: str | None


def prompts_for(manifest: Manifest, file: Path | None) -> list[Prompt]:
    """Questions of a JSONL file, or of microworld's test split, as the model is asked them; then the odd strings."""
    selection = Selection(split="test", limit=PROMPTS)
    if file is not None:
        selection = Selection(task="jsonl", data=str(file), split="test")
    style, cap = manifest.prompt_style, manifest.max_subquestions
    prompts = [
        Prompt(e.question, decompose_messages(e.question, e.premise, style=style, cap=cap))
        for e in load_examples(selection)
    ]
    odd = [Prompt(text, [{"role": "user", "content": text}], generate=False) for text in ODD_STRINGS]
    return [*prompts, *odd]


def observe(
    folder: Path,
    prompts: Sequence[Prompt],
    context: int,
    artifact: Artifact | None = None,
    on_prompt: Callable[[], None] = lambda: None,
) -> list[Observation]:
    """What a model folder, or an artifact of a bundle, makes of each prompt; in a child process.

    `context` is the number of tokens that prompt and reply may have together. Raises EdgedcError when it does not run.
    """
    size = artifact.bytes if artifact else sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    of = (artifact.format, artifact.quantization) if artifact else (None, None)
    threads = 1 if size < ONE_THREAD_BYTES else None
    made = []
    for observation in in_child(
        f"running {artifact.path if artifact else folder}", _observe, folder, prompts, context, *of, threads
    ):
        made.append(observation)
        on_prompt()
    return made


def _observe(
    folder: Path,
    prompts: Sequence[Prompt],
    context: int,
    format: Format | None,
    quantization: str | None,
    threads: int | None,
) -> Iterator[Observation]:
    _, backend = open_backend(folder, format=format, quantization=quantization, threads=threads)
    for prompt in prompts:
        ids = backend.encode(prompt.messages)
        text = ""
        if prompt.generate:
            room = max(1, context - len(ids))  # at no room at all the backend names the prompt's length
            text = backend.generate(prompt.messages, max_tokens=min(MAX_TOKENS_DECOMPOSE, room)).text
        yield Observation(tuple(ids), text)
    backend.close()


def gate(
    folder: Path,
    artifact: Artifact,
    prompts: Sequence[Prompt],
    reference: Sequence[Observation],
    context: int,
    on_prompt: Callable[[], None] = lambda: None,
) -> Gate:
    """Run an artifact and compare it with `reference`. One that does not run fails; it does not raise."""
    threshold = THRESHOLDS[artifact.quantization]
    try:
        observed = observe(folder, prompts, context, artifact, on_prompt)
    except EdgedcError as error:
        asked = sum(prompt.generate for prompt in prompts)
        return Gate(asked, len(prompts) - asked, 0.0, 0.0, 0.0, threshold, False, f"does not run: {error}")
    return compare(prompts, reference, observed, threshold)


def compare(
    prompts: Sequence[Prompt], reference: Sequence[Observation], observed: Sequence[Observation], threshold: float
) -> Gate:
    rows = list(zip(prompts, reference, observed, strict=True))
    asked = [row for row in rows if row[0].generate]
    ids = [row for row in rows if row[1].ids != row[2].ids]
    text = [row for row in asked if row[1].text != row[2].text]
    decomposition = [row for row in text if not _same_decomposition(row[1].text, row[2].text)]
    first = None
    if ids:
        first = _first_token(*ids[0])
    elif text:
        first = _first_character(*(decomposition or text)[0])
    shares = (1 - len(ids) / len(rows), 1 - len(text) / len(asked), 1 - len(decomposition) / len(asked))
    passed = shares[0] == 1.0 and min(shares[1:]) >= threshold
    return Gate(len(asked), len(rows) - len(asked), *shares, threshold, passed, first)


def _same_decomposition(a: str, b: str) -> bool:
    """Two texts that cannot be parsed are the same only when they are the same text."""
    parsed = parse(a)
    return parsed.status != "unparsed" and parsed == parse(b)


def _first_token(prompt: Prompt, expected: Observation, got: Observation) -> str:
    k = _first(expected.ids, got.ids)
    here, there = (str(o.ids[k]) if k < len(o.ids) else "the end" for o in (got, expected))
    return f"prompt {_short(prompt.label)}: token {k} is {here}, the model's is {there}"


def _first_character(prompt: Prompt, expected: Observation, got: Observation) -> str:
    k = _first(expected.text, got.text)
    here, there = (_short(o.text[k:], 20) for o in (got, expected))
    return f"prompt {_short(prompt.label)}: from character {k} its reply is {here}, the model's is {there}"


def _first(a: Sequence[object], b: Sequence[object]) -> int:
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _short(text: str, length: int = 40) -> str:
    return repr(text if len(text) <= length else text[:length] + "…")
