"""What came of a question: the calls that were made, what they took, and what there is to go on from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from edgedc.decomposer import Where, read_reply
from edgedc.decomposition import Decomposition
from edgedc.errors import SolverError
from edgedc.generation import Generation
from edgedc.prices import Price
from edgedc.prompts import final_answer
from edgedc.usage import Usage, total_usage

Mode = Literal["single-stage", "cot", "static", "interactive"]  # what can happen
Asked = Literal["auto", "single-stage", "cot", "static", "interactive"]  # what can be asked for
MODES: tuple[Mode, ...] = get_args(Mode)
ASKED: tuple[Asked, ...] = get_args(Asked)

# finish_reason of a call that came to nothing
FAILED = "failed"


@dataclass(frozen=True)
class Stage:
    """One call: `decompose`, `solve`, `step 1`, `step 2`, ...

    A call that came to nothing is one too, with the finish_reason FAILED and no text: it took time, sent bytes and may
    be billed (`generation.booked`). All of one name that came to nothing are one together. `started_s`: when it was
    begun, in seconds of waiting as `Answer.seconds` counts them; stages that were asked at the same time overlap.
    """

    name: str
    where: Where
    generation: Generation
    started_s: float = 0.0

    @property
    def failed(self) -> bool:
        return self.generation.finish_reason == FAILED

    def cost(self, price: Price | None) -> float:
        """US dollars of its tokens; a local call costs none, and a remote one needs its price."""
        if self.where == "local":
            return 0.0
        if price is None:
            raise ValueError(f"{self.name} was remote: its cost needs a price")
        return price.cost(self.generation.usage)


@dataclass(frozen=True)
class Begun:
    """All that has been received of an answer, to go on from without asking or paying for any of it again.

    `mode` is what was asked for until a decomposition has settled it. `notes` are those about the decomposition, and
    `seconds` have been waited so far.
    """

    mode: Asked
    stages: tuple[Stage, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def decomposition(self) -> Decomposition | None:
        """None where there is none yet, or nobody is to be asked for one."""
        made = self._reply("decompose")
        return read_reply(made) if made else None

    @property
    def solved(self) -> dict[int, str]:
        """What was answered to the subquestions, by their numbers from 1."""
        replies = [(stage.name, stage.generation.text) for stage in self.stages if not stage.failed]
        return {int(name[5:]): final_answer(text) for name, text in replies if name.startswith("step ")}

    @property
    def solution(self) -> Generation | None:
        """The solver's last reply, when that has come."""
        return self._reply("solve")

    def _reply(self, name: str) -> Generation | None:
        return next((s.generation for s in self.stages if s.name == name and not s.failed), None)

    def row(self) -> dict[str, Any]:
        """For JSON; `begun_from` reads it."""
        return asdict(self)


def begun_from(row: dict[str, Any]) -> Begun:
    """What `Begun.row` wrote."""
    stages = []
    for stage in row["stages"]:
        made = stage["generation"]
        made = made | {"usage": Usage(**made["usage"]), "unsupported": tuple(made["unsupported"])}
        stages.append(Stage(**stage | {"generation": Generation(**made)}))
    return Begun(row["mode"], tuple(stages), tuple(row["notes"]), row["seconds"])


@dataclass(frozen=True)
class Answer:
    """What came out, and by which calls.

    `text` is the solver's last reply and `final` the answer in it. `mode` is what really happened; where that is not
    what was asked for, or a reply was cut, `notes` says why. `decomposition` is None where nobody was asked for one.
    `seconds` is what a person waited: from the question to the answer by the clock, all sittings together; what it lay
    in between is not counted.

    A partial answer has no text. `failure` says why, and `begun` holds what there is to go on from.
    """

    text: str
    final: str
    mode: Mode
    decomposition: Decomposition | None
    stages: tuple[Stage, ...]
    begun: Begun
    seconds: float
    notes: tuple[str, ...] = ()
    failure: SolverError | None = None

    @property
    def error(self) -> str:
        """One line; "" when it is answered."""
        return str(self.failure) if self.failure else ""

    @property
    def partial(self) -> bool:
        return self.failure is not None

    @property
    def empty(self) -> str:
        """One line where the solver's last reply has come, and says nothing; "" for any other."""
        last = self.begun.solution
        if self.partial or last is None or self.text.strip():
            return ""
        return f"the solver's reply is empty ({last.finish_reason}), and it is paid for: ask again, or ask another"

    @property
    def bytes_sent(self) -> int:
        """What left this device, failed calls included."""
        return sum(stage.generation.bytes_sent for stage in self.stages)

    @property
    def booked(self) -> float | None:
        """US dollars that its calls took from their budgets: what they cost, and the worst case of those that failed
        and may be billed. None where a remote call had no budget."""
        booked = [stage.generation.booked for stage in self.stages if stage.where == "remote"]
        known = [cost for cost in booked if cost is not None]
        return sum(known) if len(known) == len(booked) else None

    def usage(self, where: Where | None = None) -> Usage:
        """Tokens of the local calls, of the remote ones, or of all."""
        return total_usage(stage.generation.usage for stage in self.stages if where in (None, stage.where))

    def cost(self, solver: Price, decomposer: Price | None = None) -> float:
        """US dollars of the remote calls' tokens. A remote decomposition needs its own price; a local one has none."""
        return sum(stage.cost(decomposer if stage.name == "decompose" else solver) for stage in self.stages)


def failed_stage(name: str, where: Where, error: SolverError, seconds: float, started_s: float) -> Stage:
    """A call that came to nothing."""
    sent = error.bytes_sent
    # Nobody counted its tokens; without a byte sent there were none.
    usage = Usage(0, 0, source="estimate" if sent else "server")
    return Stage(name, where, Generation("", usage, None, seconds, FAILED, sent, error.cost), started_s)


def with_call(stages: Sequence[Stage], stage: Stage) -> list[Stage]:
    """The calls so far, and one more.

    One that failed joins the one of its name that failed before it, so that what is kept of a question does not grow
    with each sitting at which the solver is away.
    """
    before = next((s for s in stages if s.failed and (s.name, s.where) == (stage.name, stage.where)), None)
    if before is None or not stage.failed:
        return [*stages, stage]
    old, new = before.generation, stage.generation
    booked = None if old.booked is None or new.booked is None else old.booked + new.booked
    both = replace(
        new,
        usage=total_usage([old.usage, new.usage]),
        total_s=old.total_s + new.total_s,
        bytes_sent=old.bytes_sent + new.bytes_sent,
        booked=booked,
    )
    return [replace(before, generation=both) if s is before else s for s in stages]


def in_order(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The decomposition, the steps by their numbers, then the solution, however the calls ended."""

    def place(stage: Stage) -> int:
        return {"decompose": 0, "solve": 1000}.get(stage.name) or int(stage.name.partition("step ")[2] or 0)

    return tuple(sorted(stages, key=place))
