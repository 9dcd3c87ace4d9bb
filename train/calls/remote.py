"""Paid calls to a model elsewhere: their settings, and the model as workers of train/calls/engines.py open it."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgedc.errors import InputError, need
from edgedc.flags import flag
from edgedc.generation import Message
from edgedc.ledger import Budget
from edgedc.prices import Price, price_for
from edgedc.solvers.openai import TIMEOUT_S, OpenAISolver, check_server, host_of, most_tokens, open_solver
from edgedc.solvers.pace import Pace
from edgedc.usage import Usage

from .engines import Engine

SOLVER_FLAGS = ("--solver-model", "--solver-url")


@dataclass(frozen=True)
class CallSettings:
    concurrency: int = flag(4, "Questions asked at the same time.")
    engine: Engine = flag("threads", "Threads of this process, or Ray: its cluster (RAY_ADDRESS), or this machine.")
    requests_per_minute: float | None = flag(None, "Ask at most so often.")
    tokens_per_minute: float | None = flag(None, "Send and receive at most so many tokens a minute.")
    timeout: float = flag(TIMEOUT_S, "Seconds a call, retries included.")
    retries: int = flag(4, "Retries of a call that failed in passing; their cost is reserved too.")
    max_cost: float | None = flag(None, "Ceiling in US dollars on what OUT has cost, earlier runs into it included.")
    price_as: str = flag("", "Price the model's tokens as this model of the price table.")
    prices: Path | None = flag(None, "Price table in litellm's format.  [default: the one shipped]")

    def __post_init__(self) -> None:
        for name, low in (("concurrency", 1), ("retries", 0)):
            if getattr(self, name) < low:
                raise InputError(f"--{name} {getattr(self, name)}: must be at least {low}")
        for name in ("requests_per_minute", "tokens_per_minute", "timeout", "max_cost"):
            value = getattr(self, name)
            if value is not None and not value > 0:  # true for NaN too
                raise InputError(f"--{name.replace('_', '-')} {value}: must be above 0")
        if self.timeout > threading.TIMEOUT_MAX:  # sockets take no more
            raise InputError(f"--timeout {self.timeout}: give seconds that a clock can count, 86400 for a day")
        if self.engine == "ray":
            need("ray", "ray", "ray")


@dataclass(frozen=True)
class Remote:
    """A model behind an OpenAI-compatible server. `spent`: US dollars, before this run."""

    name: str
    url: str
    temperature: float
    max_tokens: int
    price: Price | None
    settings: CallSettings
    spent: float = 0.0
    flags: tuple[str, str] = SOLVER_FLAGS

    @property
    def host(self) -> str:
        return host_of(self.url)

    def worst(self, messages: Sequence[Message]) -> float:
        """The most that a call can cost, retries included, in US dollars; 0 where no price is known."""
        usage = Usage(most_tokens(messages), self.max_tokens)
        return (1 + self.settings.retries) * self.price.cost(usage) if self.price else 0.0

    @contextmanager
    def open(self, share: float) -> Iterator[OpenAISolver]:
        """`share`: of the ceiling and the rates."""
        settings = self.settings
        requests, tokens = settings.requests_per_minute, settings.tokens_per_minute
        ceiling = math.inf if settings.max_cost is None else settings.max_cost
        solver = open_solver(
            self.name,
            self.url,
            temperature=self.temperature,
            timeout_s=settings.timeout,
            retries=settings.retries,
            budget=Budget(ceiling, self.price, spent=self.spent).part(share) if self.price else None,
            pace=Pace(requests and requests * share, tokens and tokens * share),
            flags=self.flags,
        )
        with closing(solver):
            yield solver


def find_remote(
    name: str,
    url: str,
    temperature: float,
    max_tokens: int,
    settings: CallSettings,
    flags: tuple[str, str] = SOLVER_FLAGS,
) -> Remote:
    """Nobody is asked. `flags` name the model and the address in errors.

    Raises InputError for a bad address, a missing key and a price that is needed and not known.
    """
    check_server(name, url, flags=flags)
    return Remote(
        name,
        url,
        temperature,
        max_tokens,
        price_for(name, settings.price_as, settings.prices, settings.max_cost),
        settings,
        flags=flags,
    )
