"""Many prompts at once: each in a sequence of its own, and in every step the next token of each of them."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedc.backends.llamacpp_context import BATCH, SEQUENCES, LlamaContext, Part, cells_apart, common
from edgedc.backends.reply import TURNED, Reply
from edgedc.errors import EdgedcError
from edgedc.generation import Generation

if TYPE_CHECKING:
    from edgedc.backends.reply import Scores

_AHEAD = 4 * SEQUENCES  # requests that may be taken before the first of them is answered
_WORTH_MEMORY = 2  # times the cells that prompts need may be taken, so that each sequence has its own and is faster
_WORTH_WAITING = 8  # tokens: a prompt waits a step if one that is being evaluated shares so many more with it


@dataclass(frozen=True)
class Prompt:
    """One request: its tokens, what becomes of them, and the cells that the two may need."""

    ids: list[int]
    reply: Reply
    cells: int


@dataclass
class _Running:
    """A prompt in its sequence: `reused` of its tokens were known, and `left` are still to be evaluated."""

    number: int
    prompt: Prompt
    reused: int
    left: list[int]


class Batch:
    """Runs prompts as they come; an error among them is its own result.

    None among them: just now there is no further one, so those that are there go on without it. `most_cells`: not more
    than this is asked for at once, unless a single prompt needs it; None: as many as those that wait could use.
    """

    def __init__(
        self, context: LlamaContext, prompts: Iterable[Prompt | EdgedcError | None], *, most_cells: int | None = None
    ) -> None:
        self._context, self._prompts, self._most_cells = context, iter(prompts), most_cells
        self._waiting: deque[tuple[int, Prompt]] = deque()
        self._running: dict[int, _Running] = {}
        self._done: dict[int, Generation | EdgedcError] = {}
        self._taken = 0

    def results(self, *, in_order: bool = True) -> Iterator[tuple[int, Generation | EdgedcError]]:
        """With the numbers of their prompts; if not in that order, then each as soon as it is there.

        Raises EdgedcError when llama.cpp fails.
        """
        given = 0
        try:
            while True:
                self._take(given + _AHEAD)
                while (number := given if in_order else next(iter(self._done), -1)) in self._done:
                    yield number, self._done.pop(number)
                    given += 1
                self._start()
                if self._running:
                    self._step()
                elif given == self._taken:
                    return
        finally:
            for sequence in self._running:
                self._context.release(sequence)

    def _take(self, most: int) -> None:
        while len(self._waiting) + len(self._running) < SEQUENCES and self._taken < most:
            prompt = next(self._prompts, None)
            if prompt is None:
                return
            number, self._taken = self._taken, self._taken + 1
            if isinstance(prompt, Prompt):
                self._waiting.append((number, prompt))
            else:
                self._done[number] = prompt

    def _start(self) -> None:
        """Give sequences to those that wait, in order, while there are cells for the next one."""
        if not self._running and self._waiting:
            every = [prompt.cells for _, prompt in self._waiting]
            if self._most_cells is not None:
                self._context.make_room(min(sum(every), max(self._most_cells, every[0])))
            elif cells_apart(max(every)) <= _WORTH_MEMORY * sum(every):
                self._context.make_room(max(every), apart=True)
            else:
                self._context.make_room(sum(every))
        while self._waiting:
            number, prompt = self._waiting[0]
            if prompt.cells > self._context.free_cells() or self._would_share(prompt.ids):
                return
            self._waiting.popleft()
            sequence = next(k for k in range(SEQUENCES) if k not in self._running)
            reused = self._context.claim(sequence, prompt.ids, keep=len(prompt.ids) - 1, cells=prompt.cells)
            self._running[sequence] = _Running(number, prompt, reused, prompt.ids[reused:])

    def _would_share(self, ids: list[int]) -> bool:
        """Whether a prompt that is being evaluated will save this one tokens: the first has what all have in common."""
        known = self._context.shared(ids)
        prompts = (run.prompt.ids for run in self._running.values() if len(run.left) > 1)
        return any(common(prompt, ids) - known >= _WORTH_WAITING for prompt in prompts)

    def _step(self) -> None:
        parts, room = [], BATCH
        for sequence, run in sorted(self._running.items(), key=lambda item: len(item[1].left)):
            ids, run.left = run.left[:room], run.left[room:]
            if ids:
                parts.append(Part(sequence, ids, scored=0 if run.left else 1))
                room -= len(ids)
        self._context.evaluate(parts)
        last = -1
        for part in parts:
            last += len(part.ids)
            if part.scored:
                self._go_on(part.sequence, self._context.scores(last))

    def _go_on(self, sequence: int, scores: "Scores") -> None:
        run = self._running[sequence]
        prompt, reply = run.prompt, run.prompt.reply
        try:
            token = reply.take(scores)
        except EdgedcError as error:  # of whoever hears it, too: the others go on
            self._end(sequence, error)
            return
        if token is None:
            self._end(sequence)
        elif token is TURNED:
            ids = [*prompt.ids, *reply.tokens]
            known = self._context.claim(sequence, ids, keep=len(ids) - 1, cells=prompt.cells)
            run.left = ids[known:]
        else:
            run.left = [token]

    def _end(self, sequence: int, error: EdgedcError | None = None) -> None:
        run = self._running.pop(sequence)
        self._done[run.number] = error or run.prompt.reply.generation(cached=run.reused)
        self._context.release(sequence)
