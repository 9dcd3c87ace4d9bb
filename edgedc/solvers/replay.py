"""Record a solver's replies, and play them again: offline, at no cost, as fast as wanted.

One JSONL row a call: what was asked (`model`, `messages`, `max_tokens`, `seed`) and the reply with its measurements,
and with `pieces`, the seconds and characters of each piece of text, where the caller heard them as they came. Neither
keys nor headers nor addresses are in it.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgedc.errors import InputError, SolverError, SolverRefused, SolverReply, SolverTimeout, SolverUnreachable
from edgedc.files import Row, RowAppender, key_of, numbered_rows
from edgedc.generation import Generation, Message, OnText, Solver
from edgedc.usage import Usage

if TYPE_CHECKING:
    from edgedc.solvers.loopback import Timing

_FAILURES = {kind.__name__: kind for kind in (SolverUnreachable, SolverTimeout, SolverRefused, SolverReply)}


def request_key(model: str, messages: Sequence[Message], max_tokens: int, seed: int | None) -> str:
    """What makes two requests the same. The server's address is not part of it."""
    return key_of("call", model, [dict(message) for message in messages], max_tokens, seed)


class Recording:
    """The file that one or more RecordingSolvers write to, from any number of threads.

    A request that is made several times has as many rows, in that order. Raises InputError for a file that holds
    anything else than such rows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._rows = RowAppender(path, self._count)

    def _count(self, row: Row) -> None:
        if "request" not in row:
            raise InputError(f"{self._path}: holds other rows than recorded calls; give another file to --record")
        self._made[row["request"]] += 1

    def write(self, asked: dict[str, Any], reply: dict[str, Any]) -> None:
        request = request_key(asked["model"], asked["messages"], asked["max_tokens"], asked["seed"])
        with self._lock:
            self._made[request] += 1
            key = key_of(request, self._made[request])
            self._rows.write({"key": key, "request": request, **asked, "reply": reply})

    def close(self) -> None:
        self._rows.__exit__(None, None, None)


class RecordingSolver:
    """A solver whose every call is recorded, failed ones included. Closing it leaves the recording open."""

    def __init__(self, solver: Solver, recording: Recording) -> None:
        self.model = solver.model
        self._solver, self._recording = solver, recording

    def __getattr__(self, name: str) -> Any:
        return getattr(self._solver, name)  # url, simulated, retried: what the solver knows besides

    def solve(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        seed: int | None = None,
        on_text: OnText | None = None,
    ) -> Generation:
        pieces: list[tuple[float, int]] = []
        started = time.monotonic()

        def hear(text: str) -> None:
            pieces.append((round(time.monotonic() - started, 6), len(text)))
            assert on_text is not None
            on_text(text)

        asked = {"model": self.model, "messages": list(messages), "max_tokens": max_tokens, "seed": seed}
        try:
            # a solver whose text somebody hears does not repeat an attempt that breaks off
            heard = hear if on_text else None
            made = self._solver.solve(messages, max_tokens=max_tokens, seed=seed, on_text=heard)
        except SolverError as error:
            self._recording.write(asked, {"error": type(error).__name__, "message": str(error)})
            raise
        reply = asdict(made)
        reply.pop("booked")  # what it cost then costs nothing when it is played again
        self._recording.write(
            asked, {**reply, "pieces": pieces, "simulated": getattr(self._solver, "simulated", False)}
        )
        return made

    def close(self) -> None:
        self._solver.close()


class ReplaySolver:
    """The replies of a recording, for the same requests.

    A request that was made several times gets its replies in that order, and then the last one again; one whose last
    try failed fails in the same way. `timing`: "none" answers at once and reports the recorded seconds; "original"
    takes as long as the call took then, piece by piece; a Timing, so long to the first token and for each further one.
    Raises InputError for a file that is no recording, or one of several models where `model` does not name one.
    """

    url = ""

    def __init__(self, path: Path, model: str = "", *, timing: "Literal['none', 'original'] | Timing" = "none") -> None:
        self._path, self._timing = path, timing
        self._replies: dict[str, list[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        models = set()
        for number, row in numbered_rows(path):
            match row:
                case {"request": str() as request, "model": str() as name, "reply": dict() as reply}:
                    models.add(name)
                    replies = self._replies.setdefault(request, [])
                    if replies and "error" in replies[-1]:  # it was tried again
                        replies.pop()
                    replies.append(reply)
                case _:
                    raise InputError(f"{path}:{number}: not a recorded call; --record writes them")
        if not models:
            raise InputError(f"{path}: no call is recorded in it")
        if (model and model not in models) or (not model and len(models) > 1):
            raise InputError(f"{path}: recorded are {', '.join(sorted(models))}: name one with --solver-model")
        self.model = model or models.pop()
        self.simulated = any(reply.get("simulated") for replies in self._replies.values() for reply in replies)

    def solve(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        seed: int | None = None,
        on_text: OnText | None = None,
    ) -> Generation:
        """Raises SolverReply for a request that is not in the recording, and the error of one that failed then."""
        with self._lock:
            replies = self._replies.get(request_key(self.model, messages, max_tokens, seed))
            if not replies:
                asked = messages[-1]["content"] if messages else ""
                raise SolverReply(
                    f"{self._path}: no reply of {self.model} is recorded to this request ({asked[-60:]!r}, at most "
                    f"{max_tokens} tokens, seed {seed}): record it with --record, or ask as it was asked then"
                )
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if "error" in reply:
            error = _FAILURES.get(reply["error"], SolverReply)(f"recorded: {reply.get('message', '')}")
            error.cost = 0.0
            raise error
        return self._play(_generation(reply, self._path), reply.get("pieces") or [], on_text)

    def _play(self, made: Generation, pieces: Sequence[Sequence[float]], on_text: OnText | None) -> Generation:
        pieces = pieces if sum(int(length) for _, length in pieces) == len(made.text) else []
        moments = [(float(at), int(length)) for at, length in pieces] or [(made.total_s, len(made.text))]
        total = made.total_s
        if not isinstance(self._timing, str):
            moments, total = _emulated(made, moments, self._timing)
            made = replace(made, first_token_s=moments[0][0] if made.text else None, total_s=total)
        started, begin = time.monotonic(), 0
        for at, length in moments:
            self._wait(started + at)
            if on_text and length:
                on_text(made.text[begin : begin + length])
            begin += length
        self._wait(started + total)
        return made

    def _wait(self, until: float) -> None:
        if self._timing != "none" and (rest := until - time.monotonic()) > 0:
            time.sleep(rest)

    def close(self) -> None: ...


def _emulated(
    made: Generation, moments: Sequence[tuple[float, int]], timing: "Timing"
) -> tuple[list[tuple[float, int]], float]:
    """When each piece comes at the given pace, its tokens taken as spread over the text evenly; and the end."""
    later = max(made.usage.output_tokens - 1, 0) * timing.per_token_s
    before, paced, size = 0, [], max(len(made.text), 1)
    for _, length in moments:
        paced.append((timing.first_token_s + later * before / size, length))
        before += length
    return paced, timing.first_token_s + later


def _generation(reply: dict[str, Any], path: Path) -> Generation:
    try:
        return Generation(
            text=str(reply["text"]),
            usage=Usage(**reply["usage"]),
            first_token_s=reply["first_token_s"],
            total_s=float(reply["total_s"]),
            finish_reason=str(reply["finish_reason"]),
            bytes_sent=int(reply.get("bytes_sent", 0)),
            booked=0.0,
            unsupported=tuple(reply.get("unsupported") or ()),
            reasoning_tokens=int(reply.get("reasoning_tokens", 0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a recorded reply lacks {error}: record it again with --record") from error
