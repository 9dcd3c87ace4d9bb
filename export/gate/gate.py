"""Compares an exported artifact with the model it was made from, through the backends that ship."""

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from edgedc.bundle import Artifact
from edgedc.decomposition import parse
from edgedc.errors import EdgedcError, NoGpu
from edgedc.generation import Message

from .observe import Observation, Observed, Reference, observe
from .prompts import Prompt


@dataclass(frozen=True)
class Limits:
    """What an artifact must reach: the share of prompts with the same greedy text, and with the same decomposition,
    near-ties counted as the same; the share of reply positions with the same likeliest token; and the most that KL may
    be on average, in nats."""

    text: float
    decomposition: float
    top1: float
    kl: float


# In nats, twice the largest lead that f16 lost, on questions that were foreign to a model: it had 3 of 64 replies
# otherwise, and f32 had 2, at KLs of 1.3e-6 and 8e-7.
NEAR_TIE = 0.02

# Rendered prompts, token ids, special ids and the template must be equal for every type. The rest stands between what
# sound and what broken exports of really trained models measured, by benchmarks/gate_limits.py on the demo's student
# and its base (results/gate_limits.json): 4M weights, which rounding moves more than a large model. KL may be at least
# twice that of the worst sound one. The mildest broken ones, whose norms are off by one, had 0.03 to 0.1 nats: at three
# bits and less it is their texts that tell, of which at most 0.56 were equal, and of sound ones' at least 0.72. The
# shares fall with the length of replies, which are of 40 tokens there, so that they leave more room elsewhere. A model
# of 135M weights gave a KL of 1e-9 to 6e-6 for f16 to q4_k_m. Unquantised, only near-ties may fall the other way.
_WHOLE = Limits(0.98, 0.98, 0.995, 1e-4)
_EIGHT = Limits(0.90, 0.90, 0.99, 0.002)
_FIVE = Limits(0.80, 0.80, 0.98, 0.012)
_FOUR = Limits(0.70, 0.70, 0.96, 0.04)
_THREE = Limits(0.60, 0.60, 0.95, 0.08)
_LESS = Limits(0.60, 0.60, 0.95, 0.09)
THRESHOLDS = {
    **dict.fromkeys(("fp32", "f32", "f16", "fp16"), _WHOLE),
    **dict.fromkeys(("bf16", "q8_0", "int8"), _EIGHT),
    "q6_k": Limits(0.85, 0.85, 0.985, 0.006),
    **dict.fromkeys(("q5_k_m", "q5_k_s", "q5_1", "q5_0"), _FIVE),
    "q4_k_m": Limits(0.75, 0.75, 0.97, 0.03),
    **dict.fromkeys(("q4_k_s", "int4", "iq4_nl", "iq4_xs", "q4_1", "q4_0"), _FOUR),
    **dict.fromkeys(("q3_k_l", "q3_k_m"), Limits(0.60, 0.60, 0.955, 0.08)),
    **dict.fromkeys(("q3_k_s", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs"), _THREE),
    **dict.fromkeys(("q2_k", "q2_k_s", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s"), _LESS),
}
SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}  # torch's names, and the table's


@dataclass(frozen=True)
class Smoke:
    """One question as `edgedc doctor` asks it again on another machine, and what the artifact made of it here.

    It is the question whose reply hangs least on rounding: that whose likeliest tokens lead the most, by the artifact's
    own scores, among those that it answers as the model does.
    """

    messages: list[Message]
    rendered: str
    token_ids: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Gate:
    """How an artifact compared.

    Shares are between 0 and 1: of all prompts for `rendered` and `token_ids`, of the questions for `text` and
    `decomposition`, of the `positions` that predict the model's own replies to the first `scored` questions for `top1`.
    `kl` and `kl_most` are the mean and the largest KL(model || artifact) at these, in nats, None where a score is not
    finite or none was compared. `failed` names the checks that failed (`source` that the f16 which a quantised GGUF is
    made from failed one); `first_difference` the first prompt and position that differ, in the first of these, or,
    where it passed, in anything. `reference_dtype` is torch's name of the precision in which the model was held;
    `ran_on` is where the artifact ran, "cuda" or "cpu".
    """

    questions: int
    odd_strings: int
    scored: int
    positions: int
    rendered: float
    token_ids: float
    special_ids: bool
    template: bool
    text: float
    decomposition: float
    near_ties: int
    top1: float
    kl: float | None
    kl_most: float | None
    limits: Limits
    failed: tuple[str, ...]
    passed: bool
    first_difference: str | None
    smoke: Smoke | None = None
    reference_dtype: str = "float32"
    ran_on: str = "cpu"


def gate(
    folder: Path,
    artifact: Artifact,
    prompts: Sequence[Prompt],
    reference: Reference,
    context: int,
    on_prompt: Callable[[], None] = lambda: None,
) -> Gate:
    """Run an artifact and compare it with `reference`. One that does not run fails; it does not raise.

    But NoGpu, for a graph that needs a GPU where there is none.
    """
    limits = limits_for(artifact.quantization, reference.dtype)
    try:
        observed = observe(folder, artifact, prompts, reference, context, on_prompt)
    except NoGpu:
        raise
    except EdgedcError as error:
        asked = sum(prompt.generate for prompt in prompts)
        return Gate(
            questions=asked,
            odd_strings=len(prompts) - asked,
            scored=0,
            positions=0,
            rendered=0.0,
            token_ids=0.0,
            special_ids=False,
            template=False,
            text=0.0,
            decomposition=0.0,
            near_ties=0,
            top1=0.0,
            kl=None,
            kl_most=None,
            limits=limits,
            failed=("runs",),
            passed=False,
            first_difference=f"does not run: {str(error).replace(f'{folder}{os.sep}', '')}",  # it is about to be moved
            reference_dtype=reference.dtype,
        )
    result = compare(prompts, reference, observed, limits)
    return dataclasses.replace(result, reference_dtype=reference.dtype, ran_on=observed.ran_on)


def gated(artifact: Artifact, result: Gate) -> Artifact:
    """The artifact, with what came of its gate as the manifest has it."""
    return dataclasses.replace(artifact, passed=result.passed, gate=dataclasses.asdict(result))


def limits_for(quantization: str, reference_dtype: str = "float32") -> Limits:
    """A type's own, wherever it runs; where the model itself was rounded to 16 bits, none tighter than that type's."""
    own, rounded = THRESHOLDS[quantization.removesuffix("-cuda")], THRESHOLDS[SHORT[reference_dtype]]
    shares = {name: min(getattr(own, name), getattr(rounded, name)) for name in ("text", "decomposition", "top1")}
    return Limits(**shares, kl=max(own.kl, rounded.kl))


Row = tuple[Prompt, Observation, Observation]


def compare(prompts: Sequence[Prompt], reference: Observed, observed: Observed, limits: Limits) -> Gate:
    """`reference` is what the model made of the prompts, `observed` what the artifact did."""
    rows = list(zip(prompts, reference.prompts, observed.prompts, strict=True))
    asked = [row for row in rows if row[0].generate]
    scored = [row for row in asked if row[1].forced]
    rendered = [row for row in rows if row[1].rendered != row[2].rendered]
    ids = [row for row in rows if row[1].ids != row[2].ids]
    text = sorted((row for row in asked if row[1].text != row[2].text), key=_near_tie)  # what counts comes first
    decomposition = [row for row in text if not _same_decomposition(row[1].text, row[2].text)]
    differing = {"text": text, "decomposition": decomposition}
    same = [a == b for _, x, y in scored for a, b in zip(x.top, y.top, strict=True)]
    top = [row for row in scored if row[1].top != row[2].top]
    kl = [value for row in scored for value in row[2].kl]
    finite = bool(kl) and all(map(math.isfinite, kl))
    special = reference.special_ids.difference(observed.special_ids)
    template = _template_difference(reference.template, observed.template)
    top1 = fmean(same) if same else 0.0
    differences = {
        "rendered": _first_character(rendered[0], "rendered") if rendered else None,
        "token_ids": _first_token(ids[0]) if ids else None,
        "special_ids": special,
        "template": template,
        "decomposition": _first_character(decomposition[0], "text") if decomposition else None,
        "text": _first_character(text[0], "text") if text else None,
        "top1": _first_top(top[0]) if top else None,
        "kl": _largest_kl(scored) if kl else "no position could be compared",
    }
    exact = {"rendered", "token_ids", "special_ids", "template"}
    failed = [name for name in exact if differences[name]]
    counted = {name: 1 - sum(not _near_tie(row) for row in rows) / len(asked) for name, rows in differing.items()}
    counted["top1"] = top1
    failed += [name for name, share in counted.items() if share < getattr(limits, name)]
    failed += [] if finite and fmean(kl) <= limits.kl else ["kl"]
    failed.sort(key=list(differences).index)
    return Gate(
        questions=len(asked),
        odd_strings=len(rows) - len(asked),
        scored=len(scored),
        positions=len(kl),
        rendered=1 - len(rendered) / len(rows),
        token_ids=1 - len(ids) / len(rows),
        special_ids=special is None,
        template=template is None,
        text=1 - len(text) / len(asked),
        decomposition=1 - len(decomposition) / len(asked),
        near_ties=sum(map(_near_tie, text)),
        top1=top1,
        kl=fmean(kl) if finite else None,
        kl_most=max(kl) if finite else None,
        limits=limits,
        failed=tuple(failed),
        passed=not failed,
        first_difference=_first_of(differences, failed),
        smoke=_smoke(asked),
    )


def _near_tie(row: Row) -> bool:
    """Also where the other token was a little ahead, by rounding. Far ahead it is where the model's reply, tokenized
    anew from its text, holds a token that the model did not choose: that says nothing of a tie."""
    return row[2].parted is not None and abs(row[2].parted) <= NEAR_TIE


def _first_of(differences: dict[str, str | None], failed: Sequence[str]) -> str | None:
    """That of the first check that failed; else the first there is, but that some KL is the largest is none."""
    names = failed or [name for name in differences if name != "kl"]
    return next((said for name in names if (said := differences[name])), None)


def _smoke(asked: Sequence[Row]) -> Smoke:
    equal = [row for row in asked if row[1].text == row[2].text] or asked
    prompt, _, made = max(equal, key=lambda row: row[2].margin)
    return Smoke(prompt.messages, made.rendered, made.ids, made.text)


def _same_decomposition(a: str, b: str) -> bool:
    """Two texts that cannot be parsed are the same only when they are the same text."""
    parsed = parse(a)
    return parsed.status != "unparsed" and parsed == parse(b)


def _template_difference(expected: str | None, got: str | None) -> str | None:
    if expected == got:
        return None
    if expected is None or got is None:
        return f"it has {'no' if got is None else 'a'} chat template, the model has {'none' if got else 'one'}"
    k = _first(expected, got)
    return f"its chat template goes on from character {k} with {_short(got[k:], 20)}, not {_short(expected[k:], 20)}"


def _first_token(row: Row) -> str:
    prompt, expected, got = row
    k = _first(expected.ids, got.ids)
    here, there = (str(o.ids[k]) if k < len(o.ids) else "the end" for o in (got, expected))
    return f"prompt {_short(prompt.label)}: token {k} is {here}, the model's is {there}"


def _first_character(row: Row, of: str) -> str:
    prompt, *both = row
    expected, got = (getattr(o, of) for o in both)
    k = _first(expected, got)
    what = "its reply" if of == "text" else "the rendered prompt"
    return (
        f"prompt {_short(prompt.label)}: from character {k} {what} is {_short(got[k:], 20)}, "
        f"the model's is {_short(expected[k:], 20)}"
    )


def _first_top(row: Row) -> str:
    prompt, expected, got = row
    k = _first(expected.top, got.top)
    return (
        f"prompt {_short(prompt.label)}: at position {k} of the reply token {got.top[k]} is the likeliest, "
        f"the model's is {expected.top[k]}"
    )


def _largest_kl(scored: Sequence[Row]) -> str:
    """Of the position with the largest; one that is not a number counts as infinite."""
    prompt, _, got = max(scored, key=lambda row: max(map(_size, row[2].kl)))
    k = max(range(len(got.kl)), key=lambda k: _size(got.kl[k]))
    return f"prompt {_short(prompt.label)}: at position {k} of the reply KL is {got.kl[k]:.3g} nats, the largest"


def _size(kl: float) -> float:
    return kl if math.isfinite(kl) else math.inf


def _first(a: Sequence[object], b: Sequence[object]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _short(text: str, length: int = 40) -> str:
    return repr(text if len(text) <= length else text[:length] + "…")
