"""A model on this device that answers where the solver cannot be reached."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgedc.answers import Answer, Asked, Begun
from edgedc.backends import Choice, ModelBackend, choose, open_choice
from edgedc.errors import InputError
from edgedc.generation import Generation, Message, OnText
from edgedc.pipeline import OnPiece, OnStage, answer


def choose_fallback(path: Path) -> Choice:
    """Raises InputError when there is no such model, and for one that was trained to decompose: it answers badly."""
    choice = choose(path)
    if choice.manifest.method in ("S_D-T", "S_D-R"):
        raise InputError(
            f"{path}: trained by {choice.manifest.method} to decompose, not to answer: name another --fallback-model"
        )
    return choice


def answer_here(
    question: str,
    premise: str,
    partial: Answer,
    choice: Choice,
    max_tokens: int,
    on_piece: OnPiece | None = None,
    on_stage: OnStage | None = None,
) -> Answer:
    """Go on from a partial answer with the model of `choice`; its calls are local, and a note says who has answered.

    Raises ContextError when the prompt does not fit it, and InputError when it is damaged.
    """
    begun = replace(partial.begun, mode=_mode(partial.begun, choice))
    backend = open_choice(choice)
    try:
        made = answer(
            *(question, premise),
            mode=begun.mode,
            solver=_Here(backend),
            max_tokens=max_tokens,
            begun=begun,
            on_piece=on_piece,
            on_stage=on_stage,
        )
    finally:
        backend.close()
    stages = tuple(stage if stage in partial.stages else replace(stage, where="local") for stage in made.stages)
    said = f"answered on this device by {choice.manifest.name}, as the solver could not be: {partial.error}"
    return replace(made, stages=stages, notes=(*made.notes, said))


def _mode(begun: Begun, choice: Choice) -> Asked:
    """What is asked of it: a student of `Direct` knows answers without reasoning only, and without a decomposition
    nothing but the question can be asked."""
    if choice.manifest.method == "Direct":
        return "single-stage"
    return begun.mode if begun.decomposition or begun.mode in ("single-stage", "cot") else "cot"


class _Here:
    """A model on this device as a Solver. It answers one at a time, greedily."""

    def __init__(self, backend: ModelBackend) -> None:
        self.model = backend.name
        self._backend, self._lock = backend, threading.Lock()

    def solve(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        seed: int | None = None,  # noqa: ARG002 (a Solver's)
        on_text: OnText | None = None,
    ) -> Generation:
        with self._lock:
            return self._backend.generate(messages, max_tokens=max_tokens, on_text=on_text)

    def close(self) -> None: ...
