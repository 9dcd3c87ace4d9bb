"""From a question to an answer: at once, by the solver's own reasoning, or by way of a decomposition."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from edgedc.answers import FAILED, Answer, Asked, Begun, Mode, Stage, failed_stage, in_order, with_call
from edgedc.decomposer import CUT, REFUSALS, Decomposer, Where, cut_at, decompose, remark
from edgedc.decomposition import Decomposition, fill, prerequisites
from edgedc.errors import InputError, SolverError, SolverRefused
from edgedc.generation import Generation, Message, Solver
from edgedc.prompts import MAX_TOKENS_SOLVE, final_answer, solve_messages, step_messages
from edgedc.steps import run_steps

# Hears (stage, piece of text) as replies come. Never two at a time, from any thread; steps that are asked at the same
# time come mixed. What it raises ends the answer.
OnPiece = Callable[[str, str], None]
# Hears each call as it ends, failed ones too, with all that there is by then: for whoever wants to keep it.
OnStage = Callable[[Stage, Begun], None]


def answer(
    question: str,
    premise: str = "",
    *,
    mode: Asked,
    solver: Solver,
    decomposer: Decomposer | None = None,
    max_tokens: int = MAX_TOKENS_SOLVE,
    begun: Begun | None = None,
    on_piece: OnPiece | None = None,
    on_stage: OnStage | None = None,
) -> Answer:
    """Answer a question in one of ASKED, or go on from what was `begun`, whose mode counts then.

    `auto`, `static` and `interactive` need a decomposer, unless the decomposition is there already. `auto` is `static`,
    and `single-stage` where no decomposition is needed. In the other two the solver then reasons by itself (`cot`), as
    it does in all three where no decomposition could be read; a note says so. `max_tokens` is the limit of each of the
    solver's replies.

    When a model elsewhere cannot be reached, does not answer in time or breaks off, retries included, the answer is
    partial. Raises SolverRefused where no retry would help, BudgetError, InputError for an empty question, and what a
    local decomposer raises; `on_stage` has heard what came before that.
    """
    if not question.strip():
        raise InputError("the question is empty: give one to answer")
    work = _Work(question, premise, solver, max_tokens, begun or Begun(mode), on_piece, on_stage)
    work.decompose(decomposer)
    if not work.failure:
        work.solve()
    return work.finish()


class _Work:
    """One sitting at a question, and what it has come to so far."""

    def __init__(
        self,
        question: str,
        premise: str,
        solver: Solver,
        max_tokens: int,
        begun: Begun,
        on_piece: OnPiece | None,
        on_stage: OnStage | None,
    ) -> None:
        self.failure: SolverError | None = None
        self._question, self._premise, self._solver, self._max_tokens = question, premise, solver, max_tokens
        self._before, self._started = begun.seconds, time.monotonic()
        self._mode, self._stages, self._notes = begun.mode, list(begun.stages), list(begun.notes)
        self._on_piece, self._on_stage = on_piece, on_stage
        self._speaking = threading.Lock()

    @property
    def begun(self) -> Begun:
        return Begun(self._mode, in_order(self._stages), tuple(self._notes), self._now())

    def _now(self) -> float:
        """Seconds of waiting."""
        return self._before + time.monotonic() - self._started

    def decompose(self, decomposer: Decomposer | None) -> None:
        """Get the decomposition where the mode needs one and there is none, and settle the mode."""
        if self._mode in ("single-stage", "cot"):
            return
        stage = None
        if not self.begun.decomposition:
            if decomposer is None:
                raise ValueError(f"mode {self._mode} needs a decomposer")
            stage = self._call(
                "decompose",
                decomposer.where,
                lambda **heard: decompose(decomposer, self._question, self._premise, **heard)[1],
            )
            self._stages = with_call(self._stages, stage)
        if decomposition := self.begun.decomposition:
            if stage and decomposer and (said := remark(decomposer, decomposition, stage.generation)):
                self._notes.append(said)
            self._settle(decomposition)
        if stage:
            self._tell(stage)

    def _settle(self, decomposition: Decomposition) -> None:
        """The mode that the decomposition leads to."""
        asked = self._mode
        if decomposition.status == "decomposed":
            self._mode = "static" if asked == "auto" else asked
            return
        needless = decomposition.status == "not_needed"
        self._mode = "single-stage" if asked == "auto" and needless else "cot"
        why = "no decomposition is needed" if needless else "there is no decomposition"
        self._notes.append(f"{why}: asked in mode {self._mode} instead of {asked}")

    def solve(self) -> None:
        """Ask what has not been answered yet; `failure` says what came between."""
        begun = self.begun
        if begun.solution:
            return
        if begun.mode == "interactive" and begun.decomposition:
            before = prerequisites(begun.decomposition)
            run_steps(before, set(begun.solved), partial(self._step, begun.decomposition, before), self._kept)
            if self.failure:
                return
            solved = self._solved(begun.decomposition, range(1, len(before) + 1))
            messages = step_messages(self._question, self._premise, solved=solved, subquestion=None)
        else:
            assert begun.mode in ("single-stage", "cot", "static")
            given = begun.decomposition
            messages = solve_messages(self._question, self._premise, mode=begun.mode, decomposition=given)
        self._kept(0, self._ask("solve", messages))

    def _step(self, decomposition: Decomposition, before: Sequence[Sequence[int]], number: int) -> Stage:
        """In a thread of its own."""
        known = self.begun.solved
        asked = _filled(decomposition, number, known)
        solved = self._solved(decomposition, before[number - 1])
        messages = step_messages(self._question, self._premise, solved=solved, subquestion=asked)
        return self._ask(f"step {number}", messages)

    def _solved(self, decomposition: Decomposition, numbers: Sequence[int]) -> list[tuple[str, str]]:
        known = self.begun.solved
        return [(_filled(decomposition, k, known), known[k]) for k in numbers]

    def _ask(self, name: str, messages: Sequence[Message]) -> Stage:
        solve = partial(self._solver.solve, messages, max_tokens=self._max_tokens)
        return self._call(name, "remote", solve)

    def _call(self, name: str, where: Where, ask: Callable[..., Generation]) -> Stage:
        """In any thread. A call that may go better at another time is a failed stage; what else it raises is raised."""
        started = self._now()
        try:
            made = ask(on_text=partial(self._hear, name)) if self._on_piece else ask()
        except SolverRefused:
            raise
        except SolverError as error:
            self.failure = error
            return failed_stage(name, where, error, self._now() - started, started)
        return Stage(name, where, made, started)

    def _hear(self, name: str, piece: str) -> None:
        with self._speaking:
            assert self._on_piece
            self._on_piece(name, piece)

    def _kept(self, _: int, stage: Stage) -> bool:
        self._stages = with_call(self._stages, stage)
        self._tell(stage)
        return not stage.failed

    def _tell(self, stage: Stage) -> None:
        if self._on_stage:
            self._on_stage(stage, self.begun)

    def finish(self) -> Answer:
        begun = self.begun
        text = begun.solution.text if begun.solution else ""
        final = final_answer(text)
        notes = [*begun.notes, *_remarks(begun, self._max_tokens)]
        if begun.solution and not final:
            notes.append("the solver gave no answer")
        mode: Mode = "static" if begun.mode == "auto" else begun.mode
        made = begun.decomposition
        return Answer(text, final, mode, made, begun.stages, begun, begun.seconds, tuple(notes), self.failure)


def _filled(decomposition: Decomposition, number: int, known: dict[int, str]) -> str:
    answers = [known.get(k, "") for k in range(1, number)]
    return fill(decomposition.subquestions[number - 1], answers)


def _remarks(begun: Begun, max_tokens: int) -> list[str]:
    """What a reader should know about the solver's replies."""
    notes = []
    for stage in begun.stages:
        reason, usage = stage.generation.finish_reason, stage.generation.usage
        if stage.generation.beyond:
            counts = f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens"
            notes.append(f"the server counts {counts} ({stage.name}), more than the call can have had: check its bill")
        if stage.name == "decompose":
            continue
        if reason == "length":
            notes.append(f"the solver's reply ({stage.name}) {cut_at(stage.generation, max_tokens)}")
        elif reason in REFUSALS:
            notes.append(f"the solver would not answer ({stage.name}: {reason})")
        elif reason not in ("stop", FAILED):
            whole = "is not whole" if reason in CUT else "may not be whole"
            notes.append(f"the solver's reply ({stage.name}) {whole}: its server ended it as {reason!r}")
    if begun.mode == "interactive" and begun.decomposition:
        for number, subquestion in enumerate(begun.decomposition.subquestions, start=1):
            same = _filled(begun.decomposition, number, begun.solved) == subquestion.text
            if number in begun.solved and subquestion.needs and same:
                notes.append(f"step {number} was asked as it stands: an answer that it needs is empty or too long")
    return notes
