"""What a bench measures, and every figure made from it. Unknown is None, never 0 and never NaN.

Seconds are the calls' own, from the start of the request. Time to first token: to the first token of any kind. E2E: to
the last. Speed: (tokens - 1) / (last token - first token), the inverse of the inter-token latency, per reply of two
tokens or more. A whole question takes what a person waits for it, from when it was meant to be asked, calls that
overlap counted once; its time to first token is to that of the solver's last reply, which is the answer. Each figure is
a median over the answered questions; a 90th percentile needs 20 of them. Only `decompose_mean_s` is a mean, for what
seconds cost. Money counts remote tokens at the table's prices. Apart from it, as a worst case: attempts that failed and
may be billed, and the calls of failed questions. A local decomposer's electricity is not in it.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgedc.answers import FAILED, Stage
from edgedc.bench.percentiles import P90_NEEDS
from edgedc.bench.quality import wilson_interval
from edgedc.decomposer import Where
from edgedc.prices import Price
from edgedc.typed import typed
from edgedc.usage import Source, Usage, total_usage


@dataclass(frozen=True)
class Call:
    """One call's measurements, as they stand in the rows.

    `started_s` is when it was begun, from when the question was. `doubtful_usd` is what failed attempts may be billed
    beyond its tokens, at the most; None where nobody kept count. `reasoning_tokens` are part of `output_tokens`.
    """

    stage: str
    where: Where
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    source: Source
    first_token_s: float | None
    total_s: float
    finish_reason: str
    bytes_sent: int
    started_s: float = 0.0
    doubtful_usd: float | None = None
    reasoning_tokens: int = 0

    @property
    def usage(self) -> Usage:
        return Usage(self.input_tokens, self.output_tokens, self.cached_tokens, self.source)

    @property
    def tokens_per_s(self) -> float | None:
        """None where there is no interval between tokens to measure: fewer than two, or all at once."""
        return 1 / self.itl_s if self.itl_s else None

    @property
    def itl_s(self) -> float | None:
        """Seconds between tokens, however many come in a chunk; None where `tokens_per_s` is."""
        if self.first_token_s is None or self.output_tokens < 2 or self.total_s <= self.first_token_s:
            return None
        return (self.total_s - self.first_token_s) / (self.output_tokens - 1)


def call_of(stage: Stage, price: Price | None = None) -> Call:
    """`price` is that of its tokens; None for a local call."""
    made = stage.generation
    doubtful = None if made.booked is None else max(0.0, made.booked - stage.cost(price))
    return Call(
        stage=stage.name,
        where=stage.where,
        **asdict(made.usage),
        first_token_s=made.first_token_s,
        total_s=made.total_s,
        finish_reason=made.finish_reason,
        bytes_sent=made.bytes_sent,
        started_s=stage.started_s,
        doubtful_usd=0.0 if stage.where == "local" else doubtful,
        reasoning_tokens=made.reasoning_tokens,
    )


@dataclass(frozen=True)
class Record:
    """One question through one system. `error` is the one line of a failure; only times and calls are known then.

    `mode` is what really happened. `status` and `raw` are the decomposition's, None where nobody was asked for one.
    `exact` and `correct` are None where the gold decomposition or answer is not known. `simulated`: the solver said so.
    `seconds` is what a person waits, from when the question was meant to be asked: calls may overlap. Of these are
    `queued_s` before anything was done, and `turn_s` later on for a local model's turn. It was meant to be asked
    `asked_s` after the start of its system's part of a `sitting`, which is one run of the bench. `circumstances` say
    how it was asked. `example` is a hash of the question, its premise and what is known of its answer: an id alone may
    be another question's in another file. It is empty in rows of before it was kept.
    """

    system: str
    id: str
    mode: str | None = None
    status: str | None = None
    raw: str | None = None
    exact: bool | None = None
    answer: str = ""
    correct: bool | None = None
    notes: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    simulated: bool = False
    error: str = ""
    seconds: float = 0.0
    queued_s: float = 0.0
    turn_s: float = 0.0
    asked_s: float = 0.0
    sitting: str = ""
    circumstances: str = ""
    example: str = ""

    @property
    def bytes_sent(self) -> int:
        return sum(call.bytes_sent for call in self.calls)

    @property
    def solve(self) -> Call | None:
        """The call whose reply is the answer."""
        return next((call for call in self.calls if call.stage == "solve" and call.finish_reason != FAILED), None)

    @property
    def first_token_s(self) -> float | None:
        """From when the question was meant to be asked to the first token of the solver's last reply."""
        if self.solve is None or self.solve.first_token_s is None:
            return None
        return self.queued_s + self.solve.started_s + self.solve.first_token_s


def record_from(row: dict[str, Any]) -> Record:
    """The record in a row of the file that `run_bench` keeps. Raises ValueError for another row."""
    record: Record = typed({name: value for name, value in row.items() if name != "key"}, Record)
    return record


@dataclass(frozen=True)
class Summary:
    """The figures of one system. Tokens and bytes are means per answered question, money is US dollars.

    So is `decompose_mean_s`, what a decomposition works on average; None in results of before it was kept.

    `identity` is the decomposer's: the hashes of a local one, model and URL of a remote one. Of the remote tokens,
    `cached_tokens` were read from a cache and `reasoning_tokens` written as reasoning; 0 where no server said so.
    `doubtful_usd` is what failed attempts may cost at the most, None where calls were not booked; `failed_usd` what the
    tokens of failed questions cost. Neither is in the other figures.
    """

    system: str
    mode: str
    decomposer: Where | None
    identity: str
    decomposer_price: Price | None
    questions: int
    failed: int
    first_error: str
    modes: dict[str, int]
    statuses: dict[str, int]
    remarked: int
    scored: int
    accuracy: float | None
    accuracy_95: tuple[float, float] | None
    with_gold: int
    exact: float | None
    decompose_first_s: float | None
    decompose_s: float | None
    decompose_tokens_per_s: float | None
    whole_s: float | None
    whole_p90_s: float | None
    decompose_tokens_in: float | None
    decompose_tokens_out: float | None
    solve_tokens_in: float | None
    solve_tokens_out: float | None
    token_sources: tuple[str, ...]
    decompose_usd_per_1000: float | None
    solve_usd_per_1000: float | None
    usd_per_1000: float | None
    usd_per_correct: float | None
    bytes_per_question: float | None
    cached_tokens: float | None = None
    reasoning_tokens: float | None = None
    doubtful_usd: float | None = None
    failed_usd: float = 0.0
    decompose_mean_s: float | None = None


def summarise(
    records: Sequence[Record],
    *,
    system: str,
    mode: str,
    decomposer: Where | None,
    identity: str,
    solver_price: Price,
    decomposer_price: Price | None,
) -> Summary:
    """All figures of one system's records. A remote decomposer needs its price; a local one costs no money here."""
    done = [record for record in records if not record.error]
    errors = [record.error for record in records if record.error]
    decomposing = [call for record in done for call in record.calls if call.stage == "decompose"]
    solving = [call for record in done for call in record.calls if call.stage != "decompose"]
    remote = [call for call in (*decomposing, *solving) if call.where == "remote"]
    scored = [record.correct for record in done if record.correct is not None]
    golden = [record.exact for record in done if record.exact is not None]
    split = None
    if decomposer is not None:
        split = _money(decomposing, decomposer_price) if decomposer == "remote" else 0.0
    solved = _money(solving, solver_price)
    money = solved + (split or 0.0)
    whole = [record.seconds for record in done]
    return Summary(
        system=system,
        mode=mode,
        decomposer=decomposer,
        identity=identity,
        decomposer_price=decomposer_price,
        questions=len(records),
        failed=len(errors),
        first_error=errors[0] if errors else "",
        modes=dict(Counter(record.mode for record in done if record.mode)),
        statuses=dict(Counter(record.status for record in done if record.status)),
        remarked=sum(bool(record.notes) for record in done),
        scored=len(scored),
        accuracy=_ratio(sum(scored), len(scored)),
        accuracy_95=wilson_interval(sum(scored), len(scored)) if scored else None,
        with_gold=len(golden),
        exact=_ratio(sum(golden), len(golden)),
        decompose_first_s=_median(call.first_token_s for call in decomposing),
        decompose_s=_median(call.total_s for call in decomposing),
        decompose_tokens_per_s=_median(call.tokens_per_s for call in decomposing),
        whole_s=_median(whole),
        whole_p90_s=statistics.quantiles(whole, n=10, method="inclusive")[-1] if len(whole) >= P90_NEEDS else None,
        decompose_tokens_in=_per(decomposing, done, "input_tokens"),
        decompose_tokens_out=_per(decomposing, done, "output_tokens"),
        solve_tokens_in=_per(solving, done, "input_tokens"),
        solve_tokens_out=_per(solving, done, "output_tokens"),
        token_sources=tuple(sorted({call.source for call in (*decomposing, *solving)})),
        decompose_usd_per_1000=None if split is None else _ratio(1000 * split, len(done)),
        solve_usd_per_1000=_ratio(1000 * solved, len(done)),
        usd_per_1000=_ratio(1000 * money, len(done)),
        usd_per_correct=_ratio(money, sum(scored)) if len(scored) == len(done) else None,
        bytes_per_question=_ratio(sum(record.bytes_sent for record in done), len(done)),
        cached_tokens=_per(remote, done, "cached_tokens"),
        reasoning_tokens=_per(remote, done, "reasoning_tokens"),
        doubtful_usd=_sum(call.doubtful_usd for r in records for call in r.calls),
        failed_usd=math.fsum(
            _cost(call, solver_price, decomposer_price) for r in records if r.error for call in r.calls
        ),
        decompose_mean_s=_ratio(math.fsum(call.total_s for call in decomposing), len(done)) if decomposing else None,
    )


def _cost(call: Call, solver: Price, decomposer: Price | None) -> float:
    """US dollars of a call's tokens."""
    if call.where == "local":
        return 0.0
    return _money([call], decomposer if call.stage == "decompose" else solver)


def _money(calls: Sequence[Call], price: Price | None) -> float:
    if price is None:
        raise ValueError("remote calls need a price")
    return price.cost(total_usage(call.usage for call in calls))


def _per(calls: Sequence[Call], records: Sequence[Record], tokens: str) -> float | None:
    """Mean tokens per question; None where no such call was made."""
    return _ratio(sum(getattr(call, tokens) for call in calls), len(records)) if calls else None


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _sum(values: Iterable[float | None]) -> float | None:
    """None where one of them is unknown."""
    known = list(values)
    return None if None in known else math.fsum(value for value in known if value is not None)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
