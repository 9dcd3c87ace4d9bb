"""What a bench measures, and every figure made from it. Unknown is None, never 0 and never NaN.

Seconds are the calls' own, from the start of the request. Time to first token: to the first token of any kind. E2E: to
the last. Speed: (tokens - 1) / (last token - first token), the inverse of the inter-token latency, per reply of two
tokens or more. A whole question takes the sum of its calls, which follow one another. Each figure is a median over the
answered questions; a 90th percentile needs 20 of them. Money counts remote tokens at the table's prices, failed
questions left out; a local decomposer's electricity is not in it.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgedc.bench.quality import wilson_interval
from edgedc.ledger import Price, Source, Usage, total_usage
from edgedc.pipeline import Stage, Where

P90_NEEDS = 20


@dataclass(frozen=True)
class Call:
    """One call's measurements, as they stand in the rows."""

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

    @property
    def usage(self) -> Usage:
        return Usage(self.input_tokens, self.output_tokens, self.cached_tokens, self.source)

    @property
    def tokens_per_s(self) -> float | None:
        """None where there is no interval between tokens to measure: fewer than two, or all at once."""
        if self.first_token_s is None or self.output_tokens < 2 or self.total_s <= self.first_token_s:
            return None
        return (self.output_tokens - 1) / (self.total_s - self.first_token_s)


def call_of(stage: Stage) -> Call:
    made = stage.generation
    return Call(
        stage=stage.name,
        where=stage.where,
        **asdict(made.usage),
        first_token_s=made.first_token_s,
        total_s=made.total_s,
        finish_reason=made.finish_reason,
        bytes_sent=made.bytes_sent,
    )


@dataclass(frozen=True)
class Record:
    """One question through one system. `error` is the one line of a failure; nothing else is known then.

    `mode` is what really happened. `status` and `raw` are the decomposition's, None where nobody was asked for one.
    `exact` and `correct` are None where the gold decomposition or answer is not known. `simulated`: the solver said so.
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

    @property
    def seconds(self) -> float:
        return sum(call.total_s for call in self.calls)

    @property
    def bytes_sent(self) -> int:
        return sum(call.bytes_sent for call in self.calls)


def record_from(row: dict[str, Any]) -> Record:
    """The record in a row of the file that `run_bench` keeps."""
    fields = {name: value for name, value in row.items() if name != "key"}
    return Record(**{**fields, "notes": tuple(row["notes"]), "calls": tuple(Call(**call) for call in row["calls"])})


@dataclass(frozen=True)
class Summary:
    """The figures of one system. Tokens and bytes are means per answered question, money is US dollars.

    `identity` is the decomposer's: the hashes of a local one, model and URL of a remote one.
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
    )


def _money(calls: Sequence[Call], price: Price | None) -> float:
    if price is None:
        raise ValueError("remote calls need a price")
    return price.cost(total_usage(call.usage for call in calls))


def _per(calls: Sequence[Call], records: Sequence[Record], tokens: str) -> float | None:
    """Mean tokens per question; None where no such call was made."""
    return _ratio(sum(getattr(call, tokens) for call in calls), len(records)) if calls else None


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
