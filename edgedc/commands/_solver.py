"""The solver of a verb that measures: behind an endpoint, simulated here, or played from a recording; and recorded."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgedc.bench.evaluation import Answering
from edgedc.errors import InputError
from edgedc.files import sha256_of
from edgedc.flags import flag
from edgedc.generation import Solver
from edgedc.ledger import Account, Budget, Purse
from edgedc.prices import Price, price_for
from edgedc.prompts import MAX_TOKENS_SOLVE
from edgedc.solvers import SIMULATED_MODEL
from edgedc.solvers.loopback import Timing
from edgedc.solvers.openai import TIMEOUT_S, check_server, decomposer_keys, open_solver
from edgedc.spending import Ceilings, Spending
from edgedc.tasks import Selection

if TYPE_CHECKING:
    from edgedc.solvers.replay import Recording

REMOTE_FLAGS = ("--remote-model", "--remote-url")  # that name the model which decomposes elsewhere


@dataclass(frozen=True)
class Solving(Ceilings):
    """Which solver answers, and what it may cost. Raises InputError for an amount, a length or a time that is none."""

    solver_model: str = flag("", f"The model that answers; {SIMULATED_MODEL}: one on this machine, for microworld.")
    solver_url: str = flag("", "Its base URL, often ending in /v1. [default: EDGEDC_BASE_URL, OPENAI_BASE_URL, OpenAI]")
    remote_model: str = flag("", "The model that decomposes remotely. [default: --solver-model]")
    remote_url: str = flag("", "Its base URL. [default: --solver-url]")
    solver_max_tokens: int = flag(MAX_TOKENS_SOLVE, "Longest reply of the solver.")
    prices: str = flag("", "A price table in litellm's format. [default: the dated one in edgedc]")
    price_as: str = flag("", "Price all remote tokens as this model's; for a solver that has no price of its own.")
    record: Path | None = flag(None, "Append every call of the solver to this JSONL file, for --replay.")
    timeout: float = flag(TIMEOUT_S, "Seconds a call.")
    replay: Path | None = flag(None, "A file of --record: its replies, offline and at no cost. Or a folder of runs.")
    timing: Literal["none", "original", "emulated"] = flag(
        "none", "How long a replayed call takes: no time; as it took; by --first-token-s and --per-token-s."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver_max_tokens < 1:  # for some servers -1 is no limit, and a ceiling needs one
            raise InputError(f"--solver-max-tokens {self.solver_max_tokens}: give at least 1")
        if not self.timeout > 0:  # true for NaN too
            raise InputError(f"--timeout {self.timeout}: give seconds, more than 0")


@dataclass(frozen=True)
class Opened:
    """The solver of the run, and the one that decomposes remotely: often the same."""

    answering: Answering
    remote: Answering


def price_of(solving: Solving, model: str) -> Price | None:
    """None for a model without a price, unless the price is needed or was named, which raises InputError."""
    table = Path(solving.prices) if solving.prices else None
    return price_for(model, solving.price_as, table, solving.max_cost, solving.max_cost_per_day)


def wanted(solving: Solving) -> bool:
    """Whether there is to be a solver at all. Raises InputError for flags that need one, or that contradict."""
    if solving.replay and (solving.record or solving.solver_url):
        raise InputError("--replay plays a recording: it takes neither --record nor --solver-url")
    if solving.replay and not solving.replay.exists():
        raise InputError(f"{solving.replay}: no such file or folder; --record writes one")
    if solving.timing != "none" and not solving.replay:
        raise InputError(f"--timing {solving.timing} is that of a recording: give it with --replay FILE")
    if not solving.replay and not solving.solver_model and (solving.record or solving.solver_url):
        raise InputError("no solver: name its model with --solver-model")
    return bool(solving.replay or solving.solver_model)


@contextmanager
def opened(solving: Solving, timing: Timing, selection: Selection, run: str = "") -> Iterator[Opened]:
    """`run` names the spending that --max-cost is about. Raises InputError for a model without a price that needs one.

    A simulated solver's money is not booked with that of real ones.
    """
    with ExitStack() as stack:
        model = solving.solver_model
        if solving.replay:
            played = _replayed(solving, timing, model)
            yield Opened(played, _replayed(solving, timing, solving.remote_model) if solving.remote_model else played)
            return
        recording = recording_in(stack, solving.record) if solving.record else None
        url = solving.solver_url
        if model == SIMULATED_MODEL and not url:
            url = stack.enter_context(_simulated(selection))
            account: Account = Purse(solving.max_cost or math.inf)
        else:
            account = stack.enter_context(closing(Spending(solving, run=run)))
        reach = partial(_reached, stack, solving, account, recording)
        answering = reach(model, url)
        remote = answering
        if solving.remote_model or solving.remote_url:
            there = solving.remote_url or url
            how = {"keys": decomposer_keys(there, url), "flags": REMOTE_FLAGS}
            remote = reach(solving.remote_model or model, there, **how)
        yield Opened(answering, remote)


def recording_in(stack: ExitStack, path: Path) -> "Recording":
    from edgedc.solvers.replay import Recording

    return stack.enter_context(closing(Recording(path)))


def _reached(
    stack: ExitStack,
    solving: Solving,
    account: Account,
    recording: "Recording | None",
    model: str,
    url: str,
    **how: Any,
) -> Answering:
    check_server(model, url, **how)
    price = price_of(solving, model)
    budget = Budget.on(account, price) if price else None
    reached = stack.enter_context(closing(open_solver(model, url, budget=budget, timeout_s=solving.timeout, **how)))
    solver: Solver = reached
    if recording:
        from edgedc.solvers.replay import RecordingSolver

        solver = RecordingSolver(reached, recording)
    # a simulated solver's free port is not part of what it says
    where = SIMULATED_MODEL if model == SIMULATED_MODEL and not solving.solver_url else reached.url
    return Answering(solver, where, price, max_tokens=solving.solver_max_tokens)


def _replayed(solving: Solving, timing: Timing, model: str) -> Answering:
    from edgedc.solvers.replay import ReplaySolver

    assert solving.replay is not None
    pace = timing if solving.timing == "emulated" else solving.timing
    solver = ReplaySolver(solving.replay, model, timing=pace)
    identity = f"recorded {sha256_of(solving.replay)}, timing {pace}"  # rows keep their seconds
    price, timed = price_of(solving, solver.model), solving.timing != "none"
    return Answering(solver, identity, price, max_tokens=solving.solver_max_tokens, timed=timed)


@contextmanager
def _simulated(selection: Selection) -> Iterator[str]:
    from edgedc.solvers.simulated import simulated_server
    from edgedc.tasks.microworld import problems

    if selection.task != "microworld":
        raise InputError(f"{SIMULATED_MODEL} knows microworld's problems and no others: give --task microworld")
    count = 1000 if selection.limit is None else selection.limit
    known = list(problems(selection.split, count, selection.seed))
    with simulated_server(known, timing=Timing(0.0, 0.0), seed=selection.seed) as url:
        yield url
