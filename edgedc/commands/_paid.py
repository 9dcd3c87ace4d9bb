"""What `edgedc ask` and `edgedc flush` share: paying a solver, and keeping what was paid for."""

import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgedc.answers import Answer, Asked, Begun, Stage, begun_from
from edgedc.decomposer import Decomposer
from edgedc.decomposition import decomposition_of
from edgedc.errors import EdgedcError, InputError, SolverError, SolverRefused
from edgedc.files import Row, key_of
from edgedc.flags import flag
from edgedc.generation import Generation, Message, Solver
from edgedc.home import home
from edgedc.outbox import Outbox, Question
from edgedc.pipeline import OnPiece, OnStage, answer
from edgedc.prices import Price, price_for
from edgedc.prompts import solve_messages, step_messages
from edgedc.solvers.openai import TIMEOUT_S, OpenAISolver
from edgedc.spending import Ceilings

SERVER = "Its server.  [EDGEDC_BASE_URL, OPENAI_BASE_URL, else OpenAI; key: EDGEDC_API_KEY, OPENAI_API_KEY]"


@dataclass(frozen=True)
class Paying(Ceilings):
    """Raises InputError for an amount or a time that is not above 0."""

    prices: Path | None = flag(None, "Price table in litellm's format.  [the one shipped]")
    price_as: str = flag("", "Price what is asked elsewhere as this model of the table.")
    timeout: float = flag(TIMEOUT_S, "Seconds a call.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.timeout > 0:  # true for NaN too
            raise InputError(f"--timeout {self.timeout}: give seconds, more than 0")

    def price(self, model: str, price_as: str = "") -> Price | None:
        """None for a model that the table does not have, unless there is a ceiling or another model is named."""
        return price_for(model, self.price_as or price_as, self.prices, self.max_cost, self.max_cost_per_day)


@dataclass(frozen=True)
class Remote:
    """A model elsewhere, opened, and what its tokens cost; None where that is not known."""

    solver: OpenAISolver
    price: Price | None

    @property
    def name(self) -> str:
        return f"{self.solver.model}{' (simulated)' if self.solver.simulated else ''} at {self.solver.host}"


@dataclass(frozen=True)
class Job:
    """All that it takes to ask a question, in another process and at another time too, but the keys.

    `url` has no password in it. The decomposer is the model in `folder`, or `decomposer_model` at `decomposer_url`;
    neither is named where none is asked. `prompts` tells the prompts of one edgedc from those of another.
    """

    question: str
    premise: str
    mode: Asked
    max_tokens: int
    model: str
    url: str
    price_as: str
    folder: str
    decomposer_model: str
    decomposer_url: str
    prompts: str

    def row(self) -> Row:
        return asdict(self)


def prompts() -> str:
    """A hash of all that a solver is told beside the question."""
    given = decomposition_of(["?"])
    whole = [solve_messages("", mode=mode, decomposition=given) for mode in ("single-stage", "cot", "static")]
    steps = [step_messages("", solved=[("?", "!")], subquestion=asked) for asked in ("?", None)]
    return key_of(whole, steps)


class Kept:
    """A question of the outbox while it is worked on: calls are noted as they are sent, replies as they come.

    `trouble` says why a reply could not be kept, "" while all is well: it is paid for, and is used all the same.
    """

    def __init__(self, box: Outbox, question: Question) -> None:
        self.box, self.question = box, question
        self.begun = begun_from(question.begun) if question.begun else None
        self.trouble = ""

    @property
    def paid(self) -> bool:
        """Whether there is something that it would cost to ask for again."""
        return bool(self.begun and any(stage.where == "remote" and not stage.failed for stage in self.begun.stages))

    def noting(self, call: Callable[..., Generation]) -> Callable[..., Generation]:
        """Of a call of which nothing has left this device nobody can bill anything: it is not noted."""

        def noted(messages: Sequence[Message], **how: Any) -> Generation:
            sent = threading.Event()

            def sending() -> None:
                if not sent.is_set():  # one note for all attempts
                    self.box.calling(self.question.id)
                    sent.set()

            try:
                return call(messages, on_sending=sending, **how)
            except SolverError as error:
                if sent.is_set():
                    with suppress(EdgedcError):  # the first error is the one to be told, and the note stays
                        self.box.failed_call(self.question.id, error.doubtful)
                raise

        return noted

    def stage(self, stage: Stage, begun: Begun) -> None:
        self.begun = begun
        try:
            self.box.keep(self.question.id, begun.row(), call=stage.where == "remote" and not stage.failed)
        except EdgedcError as error:
            self.trouble = f"a reply could not be kept in the outbox: {error}"

    def leave(self, error: BaseException) -> bool:
        """The work has ended early. The question waits where something was paid for; else nobody counts on it.

        True where it waits.
        """
        with suppress(EdgedcError):  # the first error is the one to be told
            if self.paid:
                self.wait(str(error) or type(error).__name__)
            else:
                self.box.remove(self.question.id)
        return self.paid

    def show(self, *, partial: bool) -> None:
        """The answer is about to be shown. A partial one will be shown again."""
        if not partial:
            self._unless_broken(self.box.showing)

    def done(self, error: str) -> None:
        """The answer has been shown, or, with an `error`, is still to come."""
        if error:
            self.wait(error)
        else:
            self._unless_broken(self.box.remove)

    def _unless_broken(self, change: Callable[[int], None]) -> None:
        """An answer that is there is shown, even where nothing can be written any more."""
        try:
            change(self.question.id)
        except EdgedcError as error:
            self.trouble = f"the answer is shown, and could not be taken out of the outbox: {error}"

    def wait(self, error: str, *, refused: bool = False) -> None:
        self.box.failed(self.question.id, error, refused=refused)
        self.box.release(self.question.id)


class _Noting:
    """A solver whose calls are noted."""

    def __init__(self, solver: Solver, kept: Kept) -> None:
        self.model, self.solve, self.close = solver.model, kept.noting(solver.solve), solver.close


def work(
    job: Job,
    solver: Solver,
    decomposer: Decomposer | None = None,
    *,
    kept: Kept | None = None,
    on_piece: OnPiece | None = None,
    on_stage: OnStage | None = None,
) -> Answer:
    """A sitting at a question, which goes on from what is kept of it. See `answer`."""

    def heard(stage: Stage, begun: Begun) -> None:
        if kept:
            kept.stage(stage, begun)
        if on_stage:
            on_stage(stage, begun)

    if kept:
        solver = _Noting(solver, kept)
        if decomposer and decomposer.where == "remote":
            decomposer = replace(decomposer, generate=kept.noting(decomposer.generate))
    return answer(
        *(job.question, job.premise),
        mode=job.mode,
        solver=solver,
        decomposer=decomposer,
        max_tokens=job.max_tokens,
        begun=kept.begun if kept else None,
        on_piece=on_piece,
        on_stage=heard,
    )


def about_request(error: SolverRefused) -> bool:
    """Whether the server refused this one request for what it holds, and not the key, the model or the address."""
    status = re.match(r"\S+: (\d{3})\b", str(error))
    return status is not None and status[1] in ("400", "413", "422")


def open_outbox(*, new: bool = True) -> Outbox | None:
    """None where there is none and no `new` one is to be made."""
    path = home() / "outbox.sqlite3"
    return Outbox(path) if new or path.exists() else None
