"""Finds the smallest type that costs no more quality than `--max-drop` allows.

Two shares count: of questions on which the artifact's decomposition agrees with the unquantised model's (whose own
share is 1), and, where decompositions are known, of those that it gives exactly right. A share's drop is how far it
lies below the model's own, in points of 100 %: from 90 % right, 1% allows 89 %, not 89.1 %. Neither may drop by more,
and the artifact must pass its gate as well.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedc.backends import open_backend
from edgedc.bench.quality import quality_of, score_decomposition
from edgedc.bundle import Artifact
from edgedc.child import in_child
from edgedc.decomposition import parse
from edgedc.errors import EdgedcError, GateError, InputError
from edgedc.generation import Message
from edgedc.prompts import MAX_TOKENS_DECOMPOSE

from ..gguf.quantize import TYPES, estimate
from ..gguf.tensors import StoredTensor
from .gate import gate, gated
from .observe import Reference, threads_for
from .prompts import Prompt

# Types that earn their size: of two that are equally large the one with less error.
CANDIDATES = ("q2_k", "q3_k_s", "q3_k_m", "iq4_xs", "q4_0", "q4_k_s", "q4_k_m", "q5_k_m", "q6_k", "q8_0", "f16")
CALIBRATED = ("iq2_xs", "iq2_m", "iq3_xxs")  # tried too, where there is an importance matrix
SHORT_RUN = 8  # questions that measure the speed where no decomposition is known
ROUNDING = 1e-9  # shares are quotients: 1 - 0.99 is a little over 0.01


@dataclass(frozen=True)
class Measured:
    """A candidate as it came out. `right` is None where no decompositions are known.

    `agreement` and `right` are shares; `tokens_per_s` counts what came after each reply's first token. `failure` says
    why it did not pass its gate, and is None when it did.
    """

    artifact: Artifact
    agreement: float
    right: float | None
    tokens_per_s: float | None
    failure: str | None


@dataclass(frozen=True)
class Chosen:
    """`artifact` is the smallest that passes; `rows` are the figures of each candidate tried, as plain data."""

    artifact: Artifact
    rows: list[dict[str, Any]]


def parse_drop(text: str) -> float:
    """`1%`, `1 %` and `0.01` are all 0.01. Raises InputError for anything else, and for 100 % and more."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text, re.ASCII)
    drop = float(found[1]) / (100 if found[2] else 1) if found else math.inf
    if not drop < 1:
        raise InputError(f"max-drop {text!r}: not a share between 0 and 1; write 1% or 0.01")
    return drop


def candidate_types(tensors: Sequence[StoredTensor], *, calibrated: bool) -> list[str]:
    """The types to try for a model of these tensors, from small to large by the size foreseen for each.

    Narrow rows move types: where a k-quant falls back to a larger type it comes behind plain q4_0.
    """
    kinds = (*CALIBRATED, *CANDIDATES) if calibrated else CANDIDATES
    return sorted(kinds, key=lambda kind: (estimate(tensors, kind), -TYPES[kind].bits))


def choose(
    kinds: Iterable[str],
    measure: Callable[[str], Measured],
    discard: Callable[[Artifact], None],
    max_drop: float,
    model_right: float | None,
    say: Callable[[str], None],
) -> Chosen:
    """Make and measure one type after the other, from small to large, until one passes; discard those that do not.

    `model_right` is the share that the unquantised model decomposes right, None where that is not known. Raises
    GateError, with the figures of the last, when none passes.
    """
    rows: list[dict[str, Any]] = []
    line = "no candidates"
    for kind in kinds:
        made = measure(kind)
        drop = _drop(made, model_right)
        passed = made.failure is None and drop <= max_drop + ROUNDING
        rows.append(_row(made, drop, passed))
        verdict = "kept" if passed else made.failure or f"loses {drop:.1%}, more than {max_drop:.1%}"
        line = f"{_shown(made, model_right)}: {verdict}"
        say(line)
        if passed:
            return Chosen(made.artifact, rows)
        discard(made.artifact)
    raise GateError(f"no type stays within --max-drop {max_drop:.1%}; the largest: {line}")


def measured(
    folder: Path, artifact: Artifact, prompts: Sequence[Prompt], reference: Reference, context: int
) -> Measured:
    """Gate an artifact, which takes the figures with it, ask it what is known once more, and time that.

    `folder` is a bundle that names the artifact.

    It does not raise when the artifact does not run: that is a failure of its gate.
    """
    compared = gate(folder, artifact, prompts, reference, context)
    artifact = gated(artifact, compared)
    failure = None if compared.passed else f"fails its gate: {compared.first_difference}"
    asked = [prompt for prompt in prompts if prompt.generate]
    known = [prompt for prompt in asked if prompt.known is not None]
    try:
        texts, speed = run(folder, artifact, [p.messages for p in known or asked[:SHORT_RUN]], context)
    except EdgedcError:  # the gate has said so
        return Measured(artifact, compared.decomposition, 0.0 if known else None, None, failure)
    return Measured(artifact, compared.decomposition, share_right(known, texts), speed, failure)


def model_right(prompts: Sequence[Prompt], reference: Reference) -> float | None:
    """The share of known decompositions that the unquantised model gives exactly; None where none is known."""
    pairs = zip(prompts, reference.prompts, strict=True)
    known = [(prompt, seen.text) for prompt, seen in pairs if prompt.known is not None]
    return share_right([prompt for prompt, _ in known], [text for _, text in known])


def share_right(prompts: Sequence[Prompt], texts: Sequence[str]) -> float | None:
    """`texts` are the replies to `prompts`, in order; more of them are not looked at."""
    pairs = list(zip(prompts, texts, strict=False))
    matches = [score_decomposition(parse(text), prompt.known) for prompt, text in pairs if prompt.known is not None]
    return quality_of(matches).exact.value if matches else None


def run(
    folder: Path, artifact: Artifact, questions: Sequence[list[Message]], context: int
) -> tuple[list[str], float | None]:
    """Replies of an artifact of a bundle, and tokens per second of decoding; in a child process.

    The speed is None when no reply had a second token. Raises EdgedcError when the artifact does not run.
    """
    threads = threads_for(artifact.bytes)
    of = artifact.format, artifact.quantization
    made = list(in_child(f"running {artifact.path}", _run, folder, *of, questions, context, threads))
    return [text for text, _, _ in made], speed_of((tokens, seconds) for _, tokens, seconds in made)


def speed_of(replies: Iterable[tuple[int, float]]) -> float | None:
    """Tokens per second, of each reply's tokens after the first and the seconds that these took."""
    longer = [(tokens, seconds) for tokens, seconds in replies if tokens > 0]
    return sum(tokens for tokens, _ in longer) / sum(seconds for _, seconds in longer) if longer else None


def _run(
    folder: Path, format: Any, quantization: str, questions: Sequence[list[Message]], context: int, threads: int | None
) -> Iterator[tuple[str, int, float]]:
    """Each reply's text, its tokens after the first, and the seconds that these took."""
    _, backend = open_backend(folder, format=format, quantization=quantization, threads=threads)
    for messages in questions:
        room = max(1, context - len(backend.encode(messages)))
        made = backend.generate(messages, max_tokens=min(MAX_TOKENS_DECOMPOSE, room))
        yield made.text, made.usage.output_tokens - 1, made.total_s - (made.first_token_s or 0.0)
    backend.close()


def _drop(made: Measured, model_right: float | None) -> float:
    """Of the share that dropped more."""
    drop = 1.0 - made.agreement
    return drop if made.right is None or model_right is None else max(drop, model_right - made.right)


def _row(made: Measured, drop: float, passed: bool) -> dict[str, Any]:
    return {
        "quantization": made.artifact.quantization,
        "bytes": made.artifact.bytes,
        "bits_per_weight": made.artifact.details["bits_per_weight"],
        **{f.name: getattr(made, f.name) for f in dataclasses.fields(made) if f.name != "artifact"},
        "drop": drop,
        "passed": passed,
    }


def _shown(made: Measured, model_right: float | None) -> str:
    artifact = made.artifact
    parts = [f"{artifact.bytes / 1e6:.1f} MB", f"{artifact.details['bits_per_weight']:.2f} bits/weight"]
    if made.tokens_per_s is not None:
        parts.append(f"{made.tokens_per_s:.0f} tokens/s")
    parts.append(f"{made.agreement:.1%} decomposed as by the model")
    if made.right is not None and model_right is not None:
        parts.append(f"{made.right:.1%} right (the model {model_right:.1%})")
    return f"{artifact.quantization}: {', '.join(parts)}"
