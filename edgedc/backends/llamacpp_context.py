"""Token sequences and their keys and values in llama.cpp: one pool of cells, in which sequences share what they have
in common."""

import ctypes
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np

from edgedc.backends import huge_pages, llamacpp_log
from edgedc.errors import EdgedcError

if TYPE_CHECKING:
    import numpy.typing as npt

SEQUENCES = 16  # more of them at once gained little where it was measured
BATCH = 256  # tokens that are evaluated together, at most: more are no faster, and take more memory
_AT_WORK = 512  # evaluations, after which huge pages have come to be worth the time that it takes to move into them
_STEP, _STEP_APART = 1024, 256  # cells; llama.cpp rounds the latter up itself


@dataclass(frozen=True)
class Part:
    """Tokens to evaluate behind those that a sequence has, with the scores behind the last `scored` of them."""

    sequence: int
    ids: Sequence[int]
    scored: int


class LlamaContext:
    """The sequences 0 to SEQUENCES - 1 of a model, as far as they have been evaluated.

    Their cells are one pool (`kv_unified`): a beginning that sequences share is there once, without copying, and one
    long sequence can have what many short ones leave. But every token then passes the cells of all sequences, so each
    may have cells of its own instead (`apart`). Memory is taken when `make_room` asks for it.

    `threads` is asked before each evaluation how many to compute it with.

    `movable` are huge pages' worth of the model's weights: moving into them costs what they save in some hundred steps,
    so that it is done, one in each step, only after as many.
    """

    def __init__(
        self,
        model: Any,
        path: Path,
        threads: Callable[[], int],
        vocabulary: int,
        adapter: Any = None,
        *,
        movable: Sequence[int] = (),
    ) -> None:
        self._model, self._path, self._adapter = model, path, adapter
        self._threads, self._used_threads = threads, 0
        # What such models keep of a sequence is one state, which cannot go back or be shared in part
        self._rewinds = not (llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model))
        batch = self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        for k in range(BATCH):
            batch.n_seq_id[k] = 1
        # Kept, as ctypes makes an attribute anew each time
        self._arrays = batch.token, batch.pos, batch.logits, [batch.seq_id[k] for k in range(BATCH)]
        self._vocabulary = vocabulary
        self._evaluations, self.movable = 0, list(movable)
        self._row, self._rows = ctypes.c_float * vocabulary, dict[int, "npt.NDArray[np.float32]"]()
        self._context: Any = None
        self.cells, self._most, self._apart = 0, 0, False  # `_most`: of them for one sequence
        self._known: list[list[int]] = []
        self._claims: list[int] = []
        self.forget()

    def make_room(self, cells: int, *, apart: bool = False) -> None:
        """Have at least this many cells, or as many in every sequence; what was evaluated is lost when there were
        fewer."""
        if self._most >= cells and (self._apart or not apart):
            return
        self.forget()
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = cells_apart(cells) if apart else -(-cells // _STEP) * _STEP
        params.n_batch = params.n_ubatch = BATCH
        params.n_seq_max, params.kv_unified = SEQUENCES, not apart
        params.n_threads = params.n_threads_batch = self._used_threads = self._threads()
        llamacpp_log.forget()
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise EdgedcError(
                f"{self._path}: llama.cpp has no room for a context of {params.n_ctx} tokens: {llamacpp_log.said()}"
            )
        self.cells, self._apart = params.n_ctx, apart
        self._most = params.n_ctx // SEQUENCES if apart else params.n_ctx
        if self._adapter:
            adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(self._adapter)
            llama_cpp.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0))

    def free_cells(self) -> int:
        """Those that one more sequence may claim."""
        return self._most if self._apart else self.cells - sum(self._claims)

    def shared(self, ids: Sequence[int]) -> int:
        """How many of the first ids some sequence has evaluated."""
        return max(common(known, ids) for known in self._known)

    def claim(self, sequence: int, ids: Sequence[int], *, keep: int, cells: int) -> int:
        """Give a sequence as many cells, and what is known of ids[:keep]; how many tokens that is.

        The cells must be free; sequences that have claimed none lose what they hold where it is in the way. When none
        is at work any more, all lose what is not a beginning of this: every token would pass it.
        """
        memory = llama_cpp.llama_get_memory(self._context)
        shared = [common(known, ids[:keep]) for known in self._known]
        if self._rewinds and not self._apart and not any(self._claims):
            for k in range(SEQUENCES):
                self._cut(k, shared[k])
        source = max(range(SEQUENCES), key=lambda k: (shared[k], k == sequence)) if self._rewinds else sequence
        reused = shared[source] if self._rewinds else 0
        if source == sequence:
            self._cut(sequence, reused)
        else:
            self._cut(sequence, 0)
            if self._apart and reused:  # llama.cpp copies all of them or none
                llama_cpp.llama_memory_seq_cp(memory, source, sequence, -1, -1)
                llama_cpp.llama_memory_seq_rm(memory, sequence, reused, -1)
            elif reused:
                llama_cpp.llama_memory_seq_cp(memory, source, sequence, 0, reused)
        self._known[sequence], self._claims[sequence] = list(ids[:reused]), cells
        idle = [k for k in range(SEQUENCES) if not self._claims[k]]
        if not self._apart and sum(len(self._known[k]) for k in idle) > self.free_cells():
            for k in idle:
                self._cut(k, 0)
        return reused

    def _cut(self, sequence: int, length: int) -> None:
        """Forget what a sequence has beyond its first tokens."""
        if len(self._known[sequence]) > length:
            memory = llama_cpp.llama_get_memory(self._context)
            llama_cpp.llama_memory_seq_rm(memory, sequence, length if length else -1, -1)
            self._known[sequence] = self._known[sequence][:length]

    def release(self, sequence: int) -> None:
        """Give up the claim; what was evaluated stays while there is room."""
        self._claims[sequence] = 0

    def evaluate(self, parts: Sequence[Part]) -> None:
        """Take at most BATCH tokens in all into their sequences. Raises EdgedcError when llama.cpp fails."""
        batch, n = self._batch, 0
        tokens, positions, scored, sequences = self._arrays
        for part in parts:
            at, unscored = len(self._known[part.sequence]), len(part.ids) - part.scored
            for k, token in enumerate(part.ids):
                tokens[n], positions[n], scored[n] = token, at + k, k >= unscored
                sequences[n][0] = part.sequence
                n += 1
        batch.n_tokens = n
        if (threads := self._threads()) != self._used_threads:
            llama_cpp.llama_set_n_threads(self._context, threads, threads)
            self._used_threads = threads
        llamacpp_log.forget()
        code = llama_cpp.llama_decode(self._context, batch)
        if code:
            self.forget()
            raise EdgedcError(f"{self._path}: llama.cpp failed while decoding (code {code}): {llamacpp_log.said()}")
        for part in parts:
            self._known[part.sequence] += part.ids
        self._evaluations += 1
        if self.movable and self._evaluations > _AT_WORK:
            huge_pages.collapse(self.movable.pop())

    def scores(self, token: int) -> "npt.NDArray[np.float32]":
        """Behind a scored token of the last evaluation, by its place there: (vocabulary,), good until the next one."""
        at = ctypes.addressof(llama_cpp.llama_get_logits_ith(self._context, token).contents)
        row = self._rows.get(at)
        if row is None:  # llama.cpp writes to the same few places, and an array takes longer to make than to look up
            row = self._rows[at] = np.ctypeslib.as_array(self._row.from_address(at))
        return row

    def all_scores(self, ids: Sequence[int], *, start: int) -> "npt.NDArray[np.float32]":
        """Evaluate ids in the first sequence: the scores behind ids[start:], (tokens, vocabulary), to keep.

        No sequence may be at work. Scores of the last evaluation are no longer good.
        """
        self.make_room(len(ids))
        at = self.claim(0, ids, keep=start, cells=len(ids))
        rows = np.empty((len(ids) - start, self._vocabulary), np.float32)
        while at < len(ids):
            part = ids[at : at + BATCH]
            at += len(part)
            scored = max(0, min(at - start, len(part)))  # its last ones
            self.evaluate([Part(0, part, scored)])
            for k in range(scored):
                rows[at - scored - start + k] = self.scores(len(part) - scored + k)
        self.release(0)
        return rows

    def close(self) -> None:
        self.forget()
        llama_cpp.llama_batch_free(self._batch)

    def forget(self) -> None:
        """Everything that was evaluated, and its memory."""
        if self._context:
            llama_cpp.llama_free(self._context)
        self._context, self.cells, self._most, self._apart = None, 0, 0, False
        self._rows.clear()
        self._known, self._claims = [[] for _ in range(SEQUENCES)], [0] * SEQUENCES


def cells_apart(cells: int) -> int:
    """How many it takes for every sequence to have so many of its own."""
    return SEQUENCES * -(-cells // _STEP_APART) * _STEP_APART


def common(known: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens at their beginnings are the same."""
    pairs = zip(known, ids, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
