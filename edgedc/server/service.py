"""What a chat request is answered with: the pipeline, between a local decomposer and a solver."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Protocol

from edgedc.answers import ASKED, Asked, Begun, Stage
from edgedc.decomposer import CUT, REFUSALS, Decomposer, decompose, remark
from edgedc.decomposition import Decomposition
from edgedc.errors import BudgetError, ContextError, EdgedcError, InputError, SolverError, SolverRefused, SolverTimeout
from edgedc.files import key_of
from edgedc.generation import Generation, Message, OnText, Solver
from edgedc.pipeline import answer
from edgedc.prices import Price
from edgedc.server.metrics import Metrics
from edgedc.server.reply import GONE, Object, Piece, Refused, Reply
from edgedc.server.request import ChatRequest
from edgedc.server.work import Stopped, Task
from edgedc.usage import total_usage

DECOMPOSER = "edgedc-decomposer"
_RETRY_AFTER_S = 10
_KEPT = 64


class Remote(Solver, Protocol):
    """A solver that knows whether a simulation is behind it, and can be asked at another temperature than its own."""

    @property
    def simulated(self) -> bool: ...

    def at(self, temperature: float) -> Solver: ...


class Service:
    """Answers by `solver`, and by `decomposer` alone where there is no solver. For any number of threads.

    `max_tokens` is the limit of a solver's reply where a request names none. `price` None: cost is not known.
    """

    def __init__(
        self, decomposer: Decomposer, solver: Remote | None, *, max_tokens: int, price: Price | None, metrics: Metrics
    ) -> None:
        self._decomposer, self._solver = decomposer, solver
        self._max_tokens, self._price, self._metrics = max_tokens, price, metrics
        self._made = int(time.time())
        self.models: dict[str, Asked | None] = {DECOMPOSER: None}
        if solver:
            # The solver's own name too, so that a client need not change the model that it asks for.
            self.models |= {solver.model: "auto", "edgedc": "auto"}
            self.models |= {f"edgedc/{mode}": mode for mode in ASKED}
        self._begun = _Kept()

    def described(self, name: str) -> Object:
        """A model as OpenAI lists it. Raises Refused (404) where there is none of that name."""
        self._check(name)
        about = {"mode": self.models[name], "decomposer": self._decomposer.name}
        about["solver"] = self._solver.model if self._solver and self.models[name] else None
        return {"id": name, "object": "model", "created": self._made, "owned_by": "edgedc", "edgedc": about}

    def _check(self, name: str) -> None:
        if name not in self.models:
            there = ", ".join(self.models)
            raise Refused(404, f"no such model; there are: {there}", param="model", code="model_not_found")

    def work(self, asked: ChatRequest) -> Callable[[Task], Reply]:
        """What is to be done for a request. Raises Refused for what cannot be."""
        self._check(asked.model)
        mode = self.models[asked.model]
        if mode is None or self._solver is None:
            if asked.temperature:
                why = f"temperature must be 0 for {DECOMPOSER}, which takes the likeliest token"
                raise Refused(400, why, param="temperature", code="unsupported_value")
            return partial(self._decompose, asked)
        return partial(self._answer, asked, mode, self._solver)

    def _decompose(self, asked: ChatRequest, task: Task) -> Reply:
        task.check()
        decomposer = replace(self._decomposer, max_tokens=asked.max_tokens or self._decomposer.max_tokens)
        made, generation = decompose(
            decomposer, asked.question, asked.premise, on_text=lambda text: task.say(Piece(text))
        )
        stage = Stage("decompose", decomposer.where, generation)
        self._metrics.call(stage)
        note = remark(decomposer, made, generation)
        whole = {
            "decomposition": decomposition_row(made),
            "notes": [note] if note else [],
            "stages": [stage_row(stage)],
        }
        return _reply(generation, (stage,), whole)

    def _answer(self, asked: ChatRequest, mode: Asked, solver: Remote, task: Task) -> Reply:
        same = key_of(
            mode, asked.question, asked.premise, asked.system, asked.max_tokens, asked.temperature, asked.seed
        )
        latest = self._begun.take(same)

        def tell(begun: Begun) -> None:
            if begun.decomposition:
                task.say(Piece(edgedc={"decomposition": decomposition_row(begun.decomposition)}))

        def on_piece(stage: str, text: str) -> None:
            if not text:
                task.check()  # the solver is silent
                return
            task.say(Piece(text) if stage == "solve" else Piece(edgedc={"stage": stage, "delta": text}))

        def on_stage(stage: Stage, begun: Begun) -> None:
            nonlocal latest
            latest = begun
            self._metrics.call(stage)
            if stage.name == "decompose":
                tell(begun)

        try:
            if latest:
                tell(latest)
            result = answer(
                asked.question,
                asked.premise,
                mode=mode,
                solver=_Asking(solver, asked, task),
                decomposer=self._decomposer,
                max_tokens=asked.max_tokens or self._max_tokens,
                begun=latest,
                on_piece=on_piece,
                on_stage=on_stage,
            )
            if result.failure:
                raise result.failure
        except Exception as error:
            self._begun.put(same, latest)
            refused = refusal(error)
            refused.edgedc = self._whole(asked, latest, partial=True) if latest else None
            raise refused from error
        assert result.begun.solution
        whole = self._whole(asked, result.begun, partial=False)
        whole |= {"answer": result.final, "notes": [*result.notes, *_ignored(asked, result.stages)]}
        return _reply(result.begun.solution, result.stages, whole)

    def _whole(self, asked: ChatRequest, begun: Begun, *, partial: bool) -> Object:
        return {
            "answer": None,
            "mode": begun.mode,
            "partial": partial,
            "decomposition": decomposition_row(begun.decomposition) if begun.decomposition else None,
            "notes": [*begun.notes, *_ignored(asked, begun.stages)],
            "solver": self._solver.model if self._solver else None,
            "simulated": bool(self._solver and self._solver.simulated),
            "seconds": begun.seconds,
            "bytes_sent": sum(stage.generation.bytes_sent for stage in begun.stages),
            "usage": asdict(total_usage(stage.generation.usage for stage in begun.stages)),
            "cost_usd": sum(stage.cost(self._price) for stage in begun.stages) if self._price else None,
            "stages": [stage_row(stage) for stage in begun.stages],
        }


class _Asking:
    """The solver as one request asks it."""

    def __init__(self, solver: Remote, asked: ChatRequest, task: Task) -> None:
        self.model, self._asked, self._task = solver.model, asked, task
        self._solve = solver.solve if asked.temperature is None else solver.at(asked.temperature).solve

    def solve(
        self, messages: Sequence[Message], *, max_tokens: int, seed: int | None = None, on_text: OnText | None = None
    ) -> Generation:
        self._task.check()
        seed = self._asked.seed if seed is None else seed
        return self._solve([*self._asked.system, *messages], max_tokens=max_tokens, seed=seed, on_text=on_text)

    def close(self) -> None: ...


class _Kept:
    """What was received of answers that did not come to an end, so that who asks again does not pay for it again."""

    def __init__(self) -> None:
        self._begun: OrderedDict[str, Begun] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str) -> Begun | None:
        with self._lock:
            return self._begun.pop(key, None)

    def put(self, key: str, begun: Begun | None) -> None:
        with self._lock:
            if begun:
                self._begun[key] = begun
            while len(self._begun) > _KEPT:
                self._begun.popitem(last=False)


def refusal(error: Exception) -> Refused:
    """How an error is told to the client. Raises what is a bug."""
    match error:
        case Refused():
            return error
        case Stopped():
            return Refused(503, "dropped, as the client has gone or the server ends", code=GONE)
        case ContextError():
            return Refused(400, str(error), param="messages", code="context_length_exceeded")
        case InputError():
            return Refused(400, str(error), code="invalid_value")
        case BudgetError():
            return Refused(429, str(error), code="insufficient_quota")
        case SolverRefused():
            return Refused(502, str(error), code="solver_refused")
        case SolverTimeout():
            return Refused(504, str(error), code="solver_timeout", retry_after=_RETRY_AFTER_S)
        case SolverError():
            return Refused(503, str(error), code="solver_failed", retry_after=_RETRY_AFTER_S)
        case EdgedcError():
            return Refused(500, str(error))
    raise error


def _reply(last: Generation, stages: Sequence[Stage], whole: Object) -> Reply:
    usage = total_usage(stage.generation.usage for stage in stages)
    sent = sum(stage.generation.bytes_sent for stage in stages)
    summary = f"{usage.input_tokens} + {usage.output_tokens} tokens, {sent} bytes left this device"
    if last.finish_reason == "refusal":
        return Reply("", "stop", usage, whole, summary, refusal=last.text)
    reason = "length" if last.finish_reason in CUT else last.finish_reason
    known = reason in ("stop", "length", *REFUSALS)
    return Reply(last.text, reason if known else "stop", usage, whole, summary)


def _ignored(asked: ChatRequest, stages: Sequence[Stage]) -> list[str]:
    """What was asked for and the solver's server did not take."""
    names = {name for stage in stages for name in stage.generation.unsupported if getattr(asked, name) is not None}
    return [f"the solver does not take {name}: its own was used" for name in sorted(names)]


def decomposition_row(made: Decomposition) -> Object:
    return {
        "status": made.status,
        "subquestions": [{"text": s.text, "needs": list(s.needs)} for s in made.subquestions],
    }


def stage_row(stage: Stage) -> Object:
    return {"name": stage.name, "where": stage.where, "started_s": stage.started_s} | asdict(stage.generation)
