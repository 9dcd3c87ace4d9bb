"""Answers as people and machines read them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from edgedc.answers import Answer, Stage
from edgedc.commands._paid import Job, Remote
from edgedc.decomposition import decomposition_of, render
from edgedc.files import Row
from edgedc.prices import Price
from edgedc.words import counted


@dataclass(frozen=True)
class Repeats:
    """Calls that failed and were repeated, and those of them that may be billed; those that were sent, that is."""

    all: int
    doubtful: int


def repeats(*remotes: Remote | None) -> Repeats:
    """By these, each counted once, since they were opened."""
    solvers = {id(remote): remote.solver for remote in remotes if remote}.values()
    return Repeats(sum(s.retried for s in solvers), sum(s.retried_doubtful for s in solvers))


def row_of(
    job: Job, key: str, result: Answer, solver: Remote, decomposer: Remote | None = None, *, before: Repeats
) -> Row:
    """An answer, or what there is of it, as --json and JSONL outputs have it. `before`: the repeats before it."""
    decomposition = result.decomposition
    now = repeats(solver, decomposer)
    stages = [_stage(stage, decomposer if stage.name == "decompose" else solver) for stage in result.stages]
    costs = [stage["cost_usd"] for stage in stages]
    remarks = [*solver.solver.remarks, *(decomposer.solver.remarks if decomposer else [])]
    return {
        "key": key,
        "question": job.question,
        "status": "partial" if result.partial else "empty" if result.empty else "answered",
        "partial": result.partial,
        "error": result.error or result.empty,
        "answer": result.final,
        "text": result.text,
        "mode": result.mode,
        "answered_by": None if result.partial else result.stages[-1].where,
        "notes": [*result.notes, *remarks],
        "subquestions": decomposition.texts if decomposition else None,
        "decomposition": decomposition.status if decomposition else None,
        "solver": job.model,
        "simulated": solver.solver.simulated,
        "seconds": result.seconds,
        "bytes_sent": result.bytes_sent,
        "usage": asdict(result.usage()),
        "cost_usd": None if None in costs else sum(costs),
        "booked_usd": result.booked,
        "price": _price(solver),
        "retried": now.all - before.all,
        "retried_doubtful": now.doubtful - before.doubtful,
        "stages": stages,
    }


def _stage(stage: Stage, remote: Remote | None) -> Row:
    price: Price | None = remote.price if remote else None
    cost = None if stage.where == "remote" and price is None else stage.cost(price)
    return {"name": stage.name, "where": stage.where, "cost_usd": cost, **asdict(stage.generation)}


def _price(remote: Remote) -> Row | None:
    return asdict(remote.price) if remote.price else None


def text_of(row: Row) -> str:
    """The subquestions, where there are some, and the solver's words."""
    parts = [render(decomposition_of(row["subquestions"]))] if row["subquestions"] else []
    return "\n\n".join([*parts, row["text"]] if row["text"] else parts)


def summary(row: Row, solver: Remote, names: dict[str, str]) -> Iterator[str]:
    """Mode, each call, and the sum; `names` has who is asked here and elsewhere."""
    yield f"mode {row['mode']}"
    for stage in row["stages"]:
        yield f"{stage['name']}: {names[_by(stage)]}, {_measured(stage)}"
    if row["retried"]:
        doubtful = row["retried_doubtful"]
        billed = f"; a provider may bill {doubtful} of those too" if doubtful else ""
        were = "was" if row["retried"] == 1 else "were"
        yield f"{counted(row['retried'], 'more call')} failed and {were} repeated{billed}"
    yield f"{row['seconds']:.2f} s, {_money(row, solver)}, {row['bytes_sent']} bytes left this device"


def _by(stage: Row) -> str:
    return "decomposer" if stage["name"] == "decompose" else stage["where"]


def _measured(stage: Row) -> str:
    if stage["finish_reason"] == "failed":
        return f"failed after {stage['total_s']:.2f} s, {stage['bytes_sent']} bytes"
    usage = stage["usage"]
    guessed = " (estimated)" if usage["source"] == "estimate" else ""
    said = f"{usage['input_tokens']} + {usage['output_tokens']} tokens{guessed} in {stage['total_s']:.2f} s"
    if stage["where"] == "local":
        return said
    cost = "" if stage["cost_usd"] is None else f", ${stage['cost_usd']:.6f}"
    return f"{said}{cost}, {stage['bytes_sent']} bytes"


def _money(row: Row, solver: Remote) -> str:
    if row["cost_usd"] is None:
        return "no price known (name one with --price-as)"
    priced = f" (price of {solver.price.model}, {solver.price.date})" if solver.price else ""
    booked = row["booked_usd"]
    beside = booked is not None and booked > row["cost_usd"] + 1e-12
    doubt = f", at most ${booked:.6f} with what failed or was not counted" if beside else ""
    return f"${row['cost_usd']:.6f}{doubt}{priced}"
