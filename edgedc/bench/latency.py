"""How fast a local decomposer is: llama-bench's tests and field names, and what a person waits for a decomposition.

`pp128` reads a prompt of 128 tokens that nothing is known of; `tg64` makes 64 tokens, one after the other, whatever
they are. Generated questions are decomposed one at a time: TTFT is from the start of the request to the first token,
E2E to the last, ITL (last token - first) / (tokens - 1); the first question is cold, as is the prompt's constant part.
Each artifact runs in a process of its own, so that its peak of memory is its own. Every sample is kept.
"""

import json
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from edgedc.backends import Choice, ModelBackend, open_choice
from edgedc.backends.cores import physical_cores
from edgedc.bench.conditions import watched
from edgedc.bench.energy import Energy, find_meter, idle_watts, metered, text_in
from edgedc.bundle import now
from edgedc.child import in_child
from edgedc.errors import InputError
from edgedc.files import read_text
from edgedc.flags import flag
from edgedc.machine import MAX_THREADS, Machine, this_machine
from edgedc.prompts import MAX_TOKENS_DECOMPOSE, decompose_messages
from edgedc.tasks.microworld import problems
from edgedc.typed import typed

IDLE_S = 3.0
_QUESTIONS = 64


@dataclass(frozen=True)
class LatencySettings:
    """Raises InputError, naming the flag, for what cannot be, or measures nothing."""

    prompt_tokens: int = flag(128, "Tokens of the prompt test; 0 leaves it out.")
    gen_tokens: int = flag(64, "Tokens of the generation test; 0 leaves it out.")
    questions: int = flag(16, "Generated questions to decompose; 0 leaves them out.")
    repetitions: int = flag(5, "Measured repetitions of the prompt and generation tests.")
    warmup: int = flag(1, "Repetitions before those, which do not count.")
    threads: int | None = flag(None, "CPU threads; default: the physical cores.")
    watts: float | None = flag(None, "Estimate energy from this draw, where nothing can be metered.")

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "gen_tokens", "questions", "warmup"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must not be below 0")
        if self.questions > _QUESTIONS:
            raise InputError(f"--questions {self.questions}: there are {_QUESTIONS}")
        if self.repetitions < 1:
            raise InputError(f"--repetitions {self.repetitions}: must be at least 1")
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise InputError(f"--threads {self.threads}: must be 1 to {MAX_THREADS}, or none")
        if not (self.prompt_tokens or self.gen_tokens or self.questions):
            raise InputError("nothing to measure: one of --prompt-tokens, --gen-tokens and --questions must be above 0")


@dataclass(frozen=True)
class Speed:
    """A prompt or generation test, in llama-bench's words: nanoseconds and tokens per second of each repetition."""

    test: str
    n_prompt: int
    n_gen: int
    samples_ns: tuple[int, ...]
    samples_ts: tuple[float, ...]
    joules_per_token: float | None

    @property
    def avg_ts(self) -> float:
        return statistics.fmean(self.samples_ts)

    @property
    def stddev_ts(self) -> float:
        """0 for one sample, as llama-bench has it."""
        return statistics.stdev(self.samples_ts) if len(self.samples_ts) > 1 else 0.0


@dataclass(frozen=True)
class Asked:
    """One question: seconds, None for what a reply without tokens, or of one, does not have."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    ttft_s: float | None
    itl_s: float | None
    e2e_s: float


@dataclass(frozen=True)
class Latency:
    """What one artifact measured. `asked` is in order: the first one was cold.

    `peak_bytes` is the process's resident peak, `tokenize_s` and `sample_s` the medians for one question's prompt and
    for one token. `energy` is that of the questions.
    """

    model: str
    artifact: str
    type: str
    size: int
    n_params: int
    backend: str
    n_threads: int
    load_s: float
    tokenize_s: float
    sample_s: float
    peak_bytes: int
    speeds: tuple[Speed, ...]
    asked: tuple[Asked, ...]
    energy: Energy | None
    warnings: tuple[str, ...]
    machine: Machine
    test_time: str = field(default_factory=now)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row a test, by llama-bench's names where it has one."""
        shared = {
            "cpu_info": self.machine.cpu,
            "backends": self.backend,
            "model_filename": self.artifact,
            "model_type": f"{self.model} {self.type}",
            "model_size": self.size,
            "model_n_params": self.n_params,
            "n_threads": self.n_threads,
            "test_time": self.test_time,
        }
        for speed in self.speeds:
            nanoseconds = speed.samples_ns
            yield (
                shared
                | asdict(speed)
                | {
                    "avg_ns": round(statistics.fmean(nanoseconds)),
                    "stddev_ns": round(statistics.stdev(nanoseconds)) if len(nanoseconds) > 1 else 0,
                    "avg_ts": speed.avg_ts,
                    "stddev_ts": speed.stddev_ts,
                }
            )


def read_latencies(path: Path) -> tuple[Latency, ...]:
    """What `edgedc bench latency --output` wrote. Raises InputError for something else."""
    try:
        made: tuple[Latency, ...] = typed(json.loads(read_text(path)), tuple[Latency, ...])
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not what  edgedc bench latency --output  wrote ({error})") from error
    return made


def measure(choice: Choice, settings: LatencySettings) -> Latency:
    """Measure an artifact in a process of its own."""
    [made] = in_child(f"measuring {choice.folder}", _measure, choice, settings)
    assert isinstance(made, Latency)
    return made


def _measure(choice: Choice, settings: LatencySettings) -> Iterator[Latency]:
    meter = find_meter(settings.watts)
    idle = idle_watts(meter, IDLE_S) if meter and meter.measured else None
    begun = time.perf_counter()
    backend = open_choice(choice, threads=settings.threads or physical_cores())
    load_s = time.perf_counter() - begun
    try:
        room, longest = choice.manifest.context_length, max(settings.prompt_tokens, settings.gen_tokens + 1)
        if room and longest > room:
            raise InputError(f"{choice.folder}: its context is {room} tokens: lower --prompt-tokens or --gen-tokens")
        prompts = [
            decompose_messages(p.question, "", style=choice.manifest.prompt_style, cap=choice.manifest.max_subquestions)
            for p in problems("test", max(1, settings.questions), 0)
        ]
        with watched() as conditions:
            with metered(meter, idle) as energy:
                asked = [_asked(backend, messages) for messages in prompts[: settings.questions]]
            speeds = []
            if settings.prompt_tokens:
                speeds.append(_speed("pp", backend, settings.prompt_tokens, settings, partial(metered, meter, idle)))
            if settings.gen_tokens:
                speeds.append(_speed("tg", backend, settings.gen_tokens, settings, partial(metered, meter, idle)))
            texts = [backend.render(messages) for messages in prompts]
            tokenize_s = statistics.median(_seconds(partial(backend.tokenize, text)) for text in texts)
            sample_s = _sample_s(backend)
        artifact = choice.artifact
        files = [choice.folder / name for name in artifact.files] if artifact else choice.folder.glob("*.safetensors")
        yield Latency(
            model=choice.manifest.name,
            artifact=artifact.path if artifact else choice.folder.name,
            type=artifact.quantization if artifact else "fp32",
            size=artifact.bytes if artifact else sum(path.stat().st_size for path in files),
            n_params=choice.manifest.parameters,
            backend=choice.engine,
            n_threads=settings.threads or physical_cores(),
            load_s=load_s,
            tokenize_s=tokenize_s,
            sample_s=sample_s,
            peak_bytes=_peak_bytes(),
            speeds=tuple(speeds),
            asked=tuple(asked),
            energy=energy if asked else None,
            warnings=tuple(conditions.warnings()),
            machine=this_machine(),
        )
    finally:
        backend.close()


def _asked(backend: ModelBackend, messages: Any) -> Asked:
    made = backend.generate(messages, max_tokens=MAX_TOKENS_DECOMPOSE)
    first, tokens = made.first_token_s, made.usage.output_tokens
    return Asked(
        made.usage.input_tokens,
        made.usage.cached_tokens,
        tokens,
        first,
        (made.total_s - first) / (tokens - 1) if first is not None and tokens > 1 else None,
        made.total_s,
    )


def _speed(
    kind: Literal["pp", "tg"], backend: ModelBackend, count: int, settings: LatencySettings, meter: Callable[[], Any]
) -> Speed:
    """Every repetition has a prompt of its own, so that no state of the one before can be used."""
    samples = []
    rng = random.Random(f"{kind} {count}")
    ends = set(backend.special_ids().ends)
    ordinary = [token for token in range(256, 512) if token not in ends]
    with meter() as energy:
        for repetition in range(settings.warmup + settings.repetitions):
            ids = rng.choices(ordinary, k=count if kind == "pp" else 1)
            steps = backend.scores(ids, 1 if kind == "pp" else count + 1)
            begun = time.perf_counter_ns()
            scores = next(steps)
            if kind == "tg":  # the prompt's own step is not one of generation
                begun = time.perf_counter_ns()
                for _ in range(count):
                    scores = steps.send(int(scores.argmax()))
            if repetition >= settings.warmup:
                samples.append(time.perf_counter_ns() - begun)
            steps.close()
    done = count * (settings.warmup + settings.repetitions)
    joules = None if energy is None else (energy.gross if energy.net is None else energy.net) / done
    pp, tg = (count, 0) if kind == "pp" else (0, count)
    return Speed(f"{kind}{count}", pp, tg, tuple(samples), tuple(count / (ns / 1e9) for ns in samples), joules)


def _sample_s(backend: ModelBackend) -> float:
    """To take the likeliest of a whole vocabulary's scores."""
    steps = backend.scores([256], 1)
    scores = next(steps)
    seconds = statistics.median(_seconds(scores.argmax) for _ in range(100))
    steps.close()
    return seconds


def _peak_bytes() -> int:
    """Resident, of this process alone: what Linux calls ru_maxrss begins with that of the process that started it."""
    if found := re.search(r"^VmHWM:\s*(\d+) kB", text_in(Path("/proc/self/status")), re.MULTILINE):  # proc(5)
        return int(found[1]) * 1024
    import resource  # which Windows has not

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
