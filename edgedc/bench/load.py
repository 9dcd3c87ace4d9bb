"""When each question is asked, and how a system fares under that load.

Closed loop: so many questions at a time, the next one when one is done. Open loop: at random times of a given rate,
whether earlier ones are answered or not, as users do. All of a question's seconds are then counted from the time at
which it was meant to be asked, so that those which had to wait behind a slow one say so ("coordinated omission" is what
leaving that wait out is called). Every time is of `time.monotonic`, which no change of the clock moves.
"""

import itertools
import math
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from edgedc.bench.metrics import Record
from edgedc.bench.percentiles import Percentiles, percentiles
from edgedc.decomposer import Generate
from edgedc.errors import InputError
from edgedc.flags import flag
from edgedc.generation import Generation

# In an open loop each question under way has a thread; what comes when all are taken waits, and its wait counts.
MOST_AT_ONCE = 256

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Load:
    """How questions arrive. Raises InputError, naming the flag, for a load that cannot be."""

    concurrency: int | None = flag(None, "Ask this many questions at a time.  [1; with --rate as many as arrive]")
    rate: float | None = flag(None, "Open loop: questions a second, at random times (Poisson).")
    arrival_seed: int = flag(0, "Of those times.")

    def __post_init__(self) -> None:
        if self.concurrency is not None and not 1 <= self.concurrency <= MOST_AT_ONCE:
            raise InputError(f"--concurrency {self.concurrency}: give 1 to {MOST_AT_ONCE}")
        if self.rate is not None and not 0 < self.rate < math.inf:  # false for NaN too
            raise InputError(f"--rate {self.rate}: give questions a second, more than 0")

    @property
    def at_once(self) -> int:
        return self.concurrency or (1 if self.rate is None else MOST_AT_ONCE)

    @property
    def one_by_one(self) -> bool:
        return self.rate is None and self.at_once == 1

    def arrivals(self, count: int) -> list[float] | None:
        """Seconds from the start, for each question; None in a closed loop."""
        if self.rate is None:
            return None
        rng = random.Random(self.arrival_seed)
        return list(itertools.accumulate(rng.expovariate(self.rate) for _ in range(count)))

    def __str__(self) -> str:
        if self.rate is None:
            return f"closed loop, {self.at_once} at a time"
        most = f", at most {self.at_once} at a time" if self.concurrency else ""
        return f"open loop, {self.rate:g} questions/s at random times (Poisson, seed {self.arrival_seed}){most}"


@dataclass(frozen=True)
class Limits:
    """What a question must meet to count in goodput; None: no such limit. Raises InputError for one not above 0."""

    limit_ttft: float | None = flag(None, "For goodput: seconds to the first token of the solver's last reply.")
    limit_e2e: float | None = flag(None, "For goodput: seconds to the whole answer.")

    def __post_init__(self) -> None:
        for name, limit in (("ttft", self.limit_ttft), ("e2e", self.limit_e2e)):
            if limit is not None and not 0 < limit < math.inf:
                raise InputError(f"--limit-{name} {limit}: give seconds, more than 0")

    @property
    def named(self) -> bool:
        return self.limit_ttft is not None or self.limit_e2e is not None

    def met_by(self, record: Record) -> bool:
        """An unknown time meets no limit, and neither does a failure."""
        if record.error:
            return False
        if self.limit_ttft is not None and (record.first_token_s is None or record.first_token_s > self.limit_ttft):
            return False
        return self.limit_e2e is None or record.seconds <= self.limit_e2e

    def __str__(self) -> str:
        named = (("TTFT", self.limit_ttft), ("E2E", self.limit_e2e))
        return " and ".join(f"{name} within {limit:g} s" for name, limit in named if limit is not None)


@dataclass(frozen=True)
class Served:
    """How a system fared. Seconds are the questions', from the time they were meant to be asked; None is unknown.

    `wall_s`: in a closed loop the time in which one of its questions was under way; in an open one from the start to
    the last answer; summed over `sittings`, as a bench may be ended and gone on with. `first_token` is that of the
    solver's last reply, which is the one a person waits for, whatever kind of token it is. `waited`: before anything
    was done, and for a local model's turn. `itl_s`: the median of (last token - first) / (tokens - 1) of that reply.
    `tokens_per_s`, `answered_per_s` and `goodput` (those that met every limit; None without one) are per wall second.
    """

    wall_s: float
    sittings: int
    requests: int
    answered: int
    met: int | None
    answered_per_s: float | None
    tokens_per_s: float | None
    goodput: float | None
    first_token: Percentiles
    whole: Percentiles
    waited: Percentiles
    itl_s: float | None


def served(records: Sequence[Record], load: Load, limits: Limits) -> Served:
    done = [record for record in records if not record.error]
    sittings = {record.sitting for record in records}
    wall = math.fsum(_wall([r for r in records if r.sitting == sitting], load) for sitting in sittings)
    met = sum(map(limits.met_by, records)) if limits.named else None
    tokens = sum(call.output_tokens for record in done for call in record.calls)
    gaps = [gap for record in done if (solve := record.solve) and (gap := solve.itl_s) is not None]

    def per_s(count: int | None) -> float | None:
        return count / wall if wall and count is not None else None

    return Served(
        wall_s=wall,
        sittings=len(sittings),
        requests=len(records),
        answered=len(done),
        met=met,
        answered_per_s=per_s(len(done)),
        tokens_per_s=per_s(tokens),
        goodput=per_s(met),
        first_token=percentiles([first for r in done if (first := r.first_token_s) is not None]),
        whole=percentiles([record.seconds for record in done]),
        waited=percentiles([record.queued_s + record.turn_s for record in done]),
        itl_s=statistics.median(gaps) if gaps else None,
    )


def _wall(records: Sequence[Record], load: Load) -> float:
    spans = sorted((record.asked_s, record.asked_s + record.seconds) for record in records)
    if load.rate is not None:
        return max(end for _, end in spans)
    busy = until = 0.0
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy


class Turn:
    """A model on this device that many ask at a time: one asker, who waited for `waited_s` until it was his turn."""

    def __init__(self, generate: Generate) -> None:
        self.waited_s = 0.0
        self._generate = generate

    def generate(self, *given: Any, **how: Any) -> Generation:
        asked = time.monotonic()
        made = self._generate(*given, **how)
        self.waited_s += max(0.0, time.monotonic() - asked - made.total_s)
        return made


def spread(
    count: int,
    load: Load,
    work: Callable[[int, float], Outcome],
    keep: Callable[[int, Outcome], None],
) -> None:
    """Do `work` for each number from 0 at its time, which it gets, as `time.monotonic` has it.

    `work` runs in threads of its own, and so does `keep`, one at a time, with what it returned. When either raises,
    nothing more is begun; what is under way is waited for and kept, as it is paid for, and the first error is raised.
    Ctrl-C waits for nothing.
    """
    began, due = time.monotonic(), load.arrivals(count)
    numbers, lock, over = iter(range(count)), threading.Lock(), threading.Event()
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def next_number() -> int | None:
        with lock:
            return None if over.is_set() else next(numbers, None)

    def worker() -> None:
        failure = None
        try:
            while (number := next_number()) is not None:
                intended = began + due[number] if due else time.monotonic()
                if over.wait(max(0.0, intended - time.monotonic())):
                    break
                outcome = work(number, intended)
                with lock:
                    keep(number, outcome)
        except BaseException as error:
            over.set()
            failure = error
        ended.put(failure)

    workers = min(load.at_once, count)
    for number in range(workers):
        # A daemon: a call that hangs must not keep a program that was told to end.
        threading.Thread(target=worker, name=f"edgedc-bench-{number}", daemon=True).start()
    try:
        failures = [failure for _ in range(workers) if (failure := ended.get()) is not None]
    finally:
        over.set()
    if failures:
        raise failures[0]
