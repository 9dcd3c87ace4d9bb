"""Runs a model, or an artifact made from it, in a child process, and notes everything that the gate compares."""

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedc.backends import ENGINE_OF, ModelBackend, choose, open_choice
from edgedc.backends.chat import raw_prompts
from edgedc.backends.transformers import TransformersBackend
from edgedc.bundle import Artifact, Format, SpecialIds
from edgedc.child import in_child
from edgedc.errors import EdgedcError, InputError, NoGpu
from edgedc.prompts import MAX_TOKENS_DECOMPOSE

from .prompts import Prompt

# Up to this size more threads gain nothing, and where other programs use the cores they wait for each other for ages.
ONE_THREAD_BYTES = 50_000_000

# The reference's scores go to a file, exactly; when it has grown to this the other prompts are compared without them.
SCORES_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Observation:
    """What became of one prompt.

    `forced` is the prompt with the reference's reply behind it, in tokens. Its positions from `start` on predict the
    reply, and what follows it; `top` is the likeliest token at each of these, `kl` the Kullback-Leibler divergence of
    the distribution from the reference's, in nats, and `margin` the least lead of a likeliest token over the second, as
    a difference of logarithms. All are empty for an odd string, and once the file of scores is full. `parted` is the
    lead, by the reference's scores, of its own token over the one with which the reply leaves the reference's; None
    where it does not, or that is not known.
    """

    rendered: str
    ids: tuple[int, ...]
    text: str = ""
    forced: tuple[int, ...] = ()
    start: int = 0
    top: tuple[int, ...] = ()
    kl: tuple[float, ...] = ()
    margin: float = 0.0
    parted: float | None = None


@dataclass(frozen=True)
class Observed:
    """A model or artifact: what it says of itself, what it made of each prompt, and on what: "cuda" or "cpu"."""

    special_ids: SpecialIds
    template: str | None
    prompts: tuple[Observation, ...]
    ran_on: str


@dataclass(frozen=True)
class Reference(Observed):
    """`scores` is a file of float32: for each prompt that has them, (positions, `vocabulary`).

    `dtype` is torch's name of the precision in which the model was held.
    """

    scores: Path
    vocabulary: int
    dtype: str = "float32"


@contextmanager
def reference_of(
    model: Path,
    prompts: Sequence[Prompt],
    context: int,
    scratch: Path,
    *,
    adapter: Path | None = None,
    dtype: str = "float32",
    on_prompt: Callable[[], None] = lambda: None,
) -> Iterator[Reference]:
    """What a model folder, with a LoRA adapter merged into it if there is one, makes of each prompt, held in `dtype`.

    `context` is the number of tokens that prompt and reply may have together. The scores lie in a folder of `scratch`,
    which must have about SCORES_BYTES to spare, until the block ends. Raises EdgedcError when the model does not run.
    """
    size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    with tempfile.TemporaryDirectory(prefix=".scores.", dir=scratch) as folder:
        scores = Path(folder) / "scores.f32"
        child = in_child(
            f"running {model}",
            _run_model,
            model,
            adapter,
            dtype,
            prompts,
            context,
            threads_for(size),
            scores,
            SCORES_BYTES,
        )
        said, made = _collect(child, on_prompt)
        yield Reference(said.special_ids, said.template, made, said.ran_on, scores, said.vocabulary, dtype)


def observe(
    folder: Path,
    artifact: Artifact,
    prompts: Sequence[Prompt],
    reference: Reference,
    context: int,
    on_prompt: Callable[[], None] = lambda: None,
) -> Observed:
    """What an artifact of a bundle makes of each prompt.

    A graph for CUDA runs there, and where that cannot be used, on the CPU. Raises EdgedcError when it does not run;
    NoGpu when there is no GPU and it has an operator that is for GPUs alone.
    """
    of = artifact.format, artifact.quantization
    child = in_child(
        f"running {artifact.path}", _run_artifact, folder, *of, prompts, reference, context, threads_for(artifact.bytes)
    )
    said, made = _collect(child, on_prompt)
    return Observed(said.special_ids, said.template, made, said.ran_on)


def threads_for(size: int) -> int | None:
    """For a model of so many bytes; None leaves it to the engine."""
    return 1 if size < ONE_THREAD_BYTES else None


@dataclass(frozen=True)
class _Said:
    """What a child has to say at the end."""

    special_ids: SpecialIds
    template: str | None
    vocabulary: int
    ran_on: str


def _collect(
    child: Iterator[Observation | _Said | NoGpu], on_prompt: Callable[[], None]
) -> tuple[_Said, tuple[Observation, ...]]:
    """A child yields its observations, and at the end what the model says of itself; or that it needs a GPU."""
    made: list[Observation] = []
    for item in child:
        if isinstance(item, Observation):
            made.append(item)
            on_prompt()
        elif isinstance(item, NoGpu):
            raise item
        else:
            said = item
    return said, tuple(made)


def _run_model(
    folder: Path,
    adapter: Path | None,
    dtype: str,
    prompts: Sequence[Prompt],
    context: int,
    threads: int | None,
    scores: Path,
    most: int,
) -> Iterator[Observation | _Said]:
    manifest = choose(folder).manifest
    raw = raw_prompts(folder) if manifest.chat_template_sha256 is None else None
    backend = TransformersBackend(
        folder, chat=raw, context_length=manifest.context_length, threads=threads, adapter=adapter, dtype=dtype
    )
    vocabulary = 0
    with scores.open("wb") as file:
        for prompt in prompts:
            made = _ask(backend, prompt, context)
            if prompt.generate and file.tell() < most:
                forced, start = _forced(backend, made, context)
                logits = backend.logits(forced, start=start)
                logits.tofile(file)
                vocabulary = logits.shape[1]
                top = tuple(map(int, logits.argmax(axis=1)))
                made = dataclasses.replace(made, forced=forced, start=start, top=top)
            yield made
    yield _Said(backend.special_ids(), backend.template, vocabulary, "cpu")
    backend.close()


def _run_artifact(
    folder: Path,
    format: Format,
    quantization: str,
    prompts: Sequence[Prompt],
    reference: Reference,
    context: int,
    threads: int | None,
) -> Iterator[Observation | _Said | NoGpu]:
    try:
        backend, ran_on = _open(folder, format, quantization, threads)
    except NoGpu as error:
        yield error  # raised, it would reach the other process as the InputError that it is too
        return
    ends = list(reference.special_ids.ends)
    with reference.scores.open("rb") as file:
        for prompt, expected in zip(prompts, reference.prompts, strict=True):
            made = _ask(backend, prompt, context)
            if expected.forced:
                logits = backend.logits(expected.forced, start=expected.start)
                if logits.shape[1] != reference.vocabulary:
                    raise EdgedcError(f"it scores {logits.shape[1]} tokens, the model {reference.vocabulary}")
                known = np.fromfile(file, np.float32, logits.size).reshape(logits.shape)
                made = dataclasses.replace(made, top=tuple(map(int, logits.argmax(axis=1))), **_compared(known, logits))
                if made.text != expected.text:
                    forced, _ = _forced(backend, made, context)
                    made = dataclasses.replace(made, parted=_lead(known, expected, forced, ends))
            yield made
    yield _Said(backend.special_ids(), backend.template, reference.vocabulary, ran_on)
    backend.close()


def _open(folder: Path, format: Format, quantization: str, threads: int | None) -> tuple[ModelBackend, str]:
    """An artifact, loaded, and what it runs on."""
    choice = choose(folder, engine=ENGINE_OF[format], quantization=quantization)
    for_cuda = choice.artifact is not None and choice.artifact.for_cuda
    try:
        return open_choice(choice, threads=threads), "cuda" if for_cuda else "cpu"
    except NoGpu:
        with contextlib.suppress(InputError):
            return open_choice(choice, threads=threads, on_cpu=True), "cpu"
        raise


def _ask(backend: ModelBackend, prompt: Prompt, context: int) -> Observation:
    rendered = backend.render(prompt.messages)
    ids = backend.tokenize(rendered)
    text = ""
    if prompt.generate:
        room = max(1, context - len(ids))  # at no room at all the backend names the prompt's length
        text = backend.complete(ids, max_tokens=min(MAX_TOKENS_DECOMPOSE, room)).text
    return Observation(rendered, tuple(ids), text)


def _forced(backend: ModelBackend, made: Observation, context: int) -> tuple[tuple[int, ...], int]:
    """The prompt and its reply in tokens, and the position that predicts the first one of the reply.

    The reply is tokenized anew from its text, with the prompt: a generation keeps only its text, and where the two
    meet in one token the count starts with that.
    """
    whole = backend.tokenize(made.rendered + made.text)[:context]
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(made.ids, whole, strict=False)))
    return tuple(whole), max(shared - 1, 0)


def _compared(reference: npt.NDArray[np.float32], artifact: npt.NDArray[np.float32]) -> dict[str, object]:
    """KL(reference || artifact) at each position in nats, and the artifact's least lead, both in float64."""
    kl, lead = [], []
    for expected, got in zip(reference, artifact, strict=True):  # row by row: a vocabulary in float64 is large
        p, q = _log_softmax(expected), _log_softmax(got)
        kl.append(float(np.sum(np.exp(p) * (p - q))))
        second, first = np.partition(q, -2)[-2:]
        lead.append(float(first - second))
    return {"kl": tuple(kl), "margin": min(lead)}


def _lead(known: npt.NDArray[np.float32], expected: Observation, got: tuple[int, ...], ends: list[int]) -> float | None:
    """See Observation.parted; `known` are the reference's scores for `expected`, `got` is the other prompt and reply.

    Where one of the two goes on and the other does not, that one has taken an end token.
    """
    own = expected.forced
    k = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(own, got, strict=False)))
    row = k - 1 - expected.start
    if own == got or not (0 <= row < len(known) and ends):
        return None
    own_token, other = (ids[k] if k < len(ids) else max(ends, key=known[row].__getitem__) for ids in (own, got))
    return float(known[row, own_token] - known[row, other])


def _log_softmax(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = scores.astype(np.float64) - scores.max()
    return shifted - np.log(np.sum(np.exp(shifted)))
