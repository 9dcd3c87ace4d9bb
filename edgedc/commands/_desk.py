"""The models that a question needs, opened when one first needs them, and one account for all that they cost."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgedc.commands._local import Local, Settings, choose_local
from edgedc.commands._paid import Job, Paying, Remote
from edgedc.decomposer import Decomposer
from edgedc.ledger import Budget
from edgedc.solvers.breaker import Breaker
from edgedc.solvers.openai import check_server, decomposer_keys, host_of, open_solver
from edgedc.spending import Spending


class Desk:
    """Everything is closed with the stack. Raises what opening raises."""

    def __init__(self, stack: ExitStack, paying: Paying) -> None:
        self._stack, self._paying = stack, paying
        self._spending: Spending | None = None
        self._remotes: dict[tuple[str, str, str], Remote] = {}
        self._breakers: dict[str, Breaker] = {}  # solver and decomposer of one host share it
        self._locals: dict[str, Local] = {}
        self._decomposers: dict[tuple[str, str, str], Decomposer] = {}

    @property
    def spent(self) -> float | None:
        """US dollars that were booked through this desk; None where no price was known."""
        return self._spending.spent if self._spending else None

    def solver(self, model: str, url: str, price_as: str = "") -> Remote:
        return self._remote(model, url, price_as)

    def far_decomposer(self, job: Job) -> Remote | None:
        """The one elsewhere, where the job names one."""
        if not job.decomposer_model:
            return None
        url, flags = job.decomposer_url or job.url, ("--decomposer-model", "--decomposer-url")
        return self._remote(job.decomposer_model, url, job.price_as, keys=decomposer_keys(url, job.url), flags=flags)

    def _remote(self, model: str, url: str, price_as: str, **settings: Any) -> Remote:
        if (model, url, price_as) not in self._remotes:
            self._remotes[model, url, price_as] = self._open(model, url, price_as, **settings)
        return self._remotes[model, url, price_as]

    def _open(self, model: str, url: str, price_as: str, **settings: Any) -> Remote:
        check_server(model, url, **settings)
        # What is spent is booked wherever the price is known: another run may have a ceiling for the day.
        price = self._paying.price(model, price_as)
        if price and self._spending is None:
            self._spending = Spending(self._paying)
            self._stack.callback(self._spending.close)
        budget = Budget.on(self._spending, price) if price and self._spending else None
        breaker = self._breakers.setdefault(host_of(url), Breaker())
        solver = open_solver(model, url, budget=budget, timeout_s=self._paying.timeout, breaker=breaker, **settings)
        self._stack.callback(solver.close)
        return Remote(solver, price)

    def local(self, model: Path | None) -> Local:
        """The model that was named, else the default one; jobs with its folder are given the same."""
        local = choose_local(Settings(model=model))
        self._locals[str(local.choice.folder.resolve())] = local
        return local

    def decomposer(self, job: Job) -> Decomposer | None:
        """The one that the job names; None where it names none."""
        named = (job.folder, job.decomposer_model, job.decomposer_url)
        if named not in self._decomposers:
            if far := self.far_decomposer(job):
                made = Decomposer(far.name, "remote", far.solver.solve, "instruct-1")
            elif job.folder:
                local = self._locals.get(job.folder) or self.local(Path(job.folder))
                made = self._stack.enter_context(local.decomposer())
            else:
                return None
            self._decomposers[named] = made
        return self._decomposers[named]
