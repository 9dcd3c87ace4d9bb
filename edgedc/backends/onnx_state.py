"""Keys and values of a decoder graph between its runs, in the two ways that graphs have them.

optimum's graphs take keys and values of any length and return them longer. The model builder's have GroupQueryAttention
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md), which counts positions itself and writes
into the buffer that it is given, so nothing is copied from token to token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort

_LEAST_CONTEXT = 1024


@dataclass(frozen=True)
class Past:
    """One input of keys or values, (batch, heads, tokens, head size), and the output that continues it."""

    name: str
    dtype: Any
    heads: int
    size: int

    @property
    def present(self) -> str:
        return self.name.replace("past_key_values", "present")

    def zeros(self, tokens: int) -> Any:
        return np.zeros((1, self.heads, tokens, self.size), self.dtype)


@dataclass(frozen=True)
class Scored:
    """The output `logits`, (batch, tokens, vocabulary). `vocabulary` is 0 where the graph does not say it.

    `chosen`: it can be told at which of the tokens to begin, by the input FIRST (export/onnx/first_score.py). In a
    small model the scores take a sixth of a prompt's time, and only the last ones matter.
    """

    FIRST: ClassVar = "first_score"

    vocabulary: int
    dtype: Any
    chosen: bool


class Growing:
    """Past in, longer past out."""

    def __init__(self, session: Any, past: list[Past], scored: Scored) -> None:
        self._session, self._chosen = session, scored.chosen
        names = {given.name for given in session.get_inputs()}
        self._feeds = [name for name in ("input_ids", "attention_mask", "position_ids") if name in names]
        self._values = {p.name: p.zeros(0) for p in past}
        self._outputs = ["logits", *(p.present for p in past)]

    def make_room(self, tokens: int) -> bool:  # noqa: ARG002 (it has none to make)
        return False

    def run(self, ids: Sequence[int], *, seen: int, first: int) -> Any:
        """The scores behind ids[first:], which stand behind the first `seen` tokens: (len(ids) - first, vocabulary)."""
        whole = seen + len(ids)
        made = {"input_ids": [ids], "attention_mask": np.ones((1, whole)), "position_ids": [range(seen, whole)]}
        feeds = {name: np.array(made[name], np.int64) for name in self._feeds}
        if self._chosen:
            feeds[Scored.FIRST] = np.array([first])
        past = {name: value[:, :, :seen] for name, value in self._values.items()}
        logits, *present = self._session.run(self._outputs, {**feeds, **past})
        self._values = dict(zip(past, present, strict=True))
        return logits[0] if self._chosen else logits[0, first:]

    def step(self, token: int, *, seen: int) -> Any:
        return self.run([token], seen=seen, first=0)[0]


class InPlace:
    """Buffers for the whole context, each past and present at once; `provider` says where they lie.

    A context has room for the next power of two of what is asked for. On a CPU its memory is taken as it fills.
    For one token everything is bound once and changes in place: the graph does not see that the mask is longer than
    what it marks. Binding anew would take as long as a tenth of a tiny model's step.
    """

    def __init__(self, session: Any, past: list[Past], scored: Scored, limit: int, provider: str) -> None:
        self._session, self._past, self._scored, self._limit = session, past, scored, limit
        self._provider = provider
        self._room = 0

    def make_room(self, tokens: int) -> bool:
        """Have buffers for at least this many tokens; whether they are new, and know nothing."""
        if tokens <= self._room:
            return False
        self._room = min(max(_LEAST_CONTEXT, 1 << (tokens - 1).bit_length()), self._limit)
        self._prompt, self._one = self._session.io_binding(), self._session.io_binding()
        for past in self._past:
            buffer = ort.OrtValue.ortvalue_from_numpy(past.zeros(self._room), self._provider, 0)
            for binding in (self._prompt, self._one):
                binding.bind_ortvalue_input(past.name, buffer)
                binding.bind_ortvalue_output(past.present, buffer)
        self._token = np.zeros((1, 1), np.int64)
        self._mask = np.zeros((1, self._room), np.int64)
        self._logits = np.zeros((1, 1, self._scored.vocabulary), self._scored.dtype)
        self._marked = 0
        self._bind_one()
        self._one.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(self._logits))
        return True

    def run(self, ids: Sequence[int], *, seen: int, first: int) -> Any:
        """As Growing's."""
        binding = self._prompt
        binding.bind_cpu_input("input_ids", np.array([ids], np.int64))
        binding.bind_cpu_input("attention_mask", np.ones((1, seen + len(ids)), np.int64))
        if self._scored.chosen:
            binding.bind_ortvalue_input(Scored.FIRST, ort.OrtValue.ortvalue_from_numpy(np.array([first])))
        binding.bind_output("logits")  # anew, because its length changes
        self._session.run_with_iobinding(binding)
        logits = binding.get_outputs()[-1].numpy()[0]
        return logits if self._scored.chosen else logits[first:]

    def step(self, token: int, *, seen: int) -> Any:
        """As Growing's; the array is overwritten by the next step."""
        if self._marked != seen:  # after a prompt
            self._mask[0, :seen], self._mask[0, seen:] = 1, 0
        self._token[0, 0], self._mask[0, seen] = token, 1
        self._marked = seen + 1
        if self._provider != "cpu":  # what is bound was copied to the device
            self._bind_one()
        self._session.run_with_iobinding(self._one)
        return self._logits[0, 0]

    def _bind_one(self) -> None:
        self._one.bind_ortvalue_input("input_ids", ort.OrtValue.ortvalue_from_numpy(self._token))
        self._one.bind_ortvalue_input("attention_mask", ort.OrtValue.ortvalue_from_numpy(self._mask))
