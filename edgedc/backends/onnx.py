"""ONNX artifacts, run by onnxruntime alone."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgedc.backends.chat import ChatTemplate, end_tokens, read_chat_template, read_config, read_special_ids
from edgedc.backends.cores import FreeCores, physical_cores
from edgedc.backends.greedy import GreedyBackend, check_context
from edgedc.backends.marks import Marks
from edgedc.backends.onnx_graph import Graph, Provider
from edgedc.bundle import SpecialIds
from edgedc.errors import InputError, MissingExtra
from edgedc.generation import Message

try:
    from tokenizers import Tokenizer
except ModuleNotFoundError as error:
    raise MissingExtra("tokenizers", "onnx") from error

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgedc.backends.reply import Scores


class OnnxBackend(GreedyBackend):
    """An ONNX graph on this machine's CPU or GPU, with the tokenizer and configs of the folder it belongs to.

    The state of the last prompt is kept, and its common prefix reused. `folder` holds tokenizer.json,
    chat_template.jinja, unless `chat` is given, and the configs that name the end tokens. `context_length` 0 is the
    one in config.json. Raises InputError when a file is missing or cannot be loaded, or when the graph is not a decoder
    with past.
    """

    def __init__(
        self,
        path: Path,
        folder: Path,
        *,
        chat: ChatTemplate | None = None,
        context_length: int = 0,
        threads: int | None = None,
        provider: Provider = "cpu",
    ) -> None:
        self.name = f"onnxruntime {path.name}"
        self._folder = folder
        self._chat = chat or read_chat_template(folder)
        self.template = None if chat else self._chat.text
        self._tokenizer = read_tokenizer(folder)
        added = self._tokenizer.get_added_tokens_decoder().items()
        self._marks = Marks({token.content: id for id, token in added if token.special}, self._ids)
        self._ends = end_tokens(folder, self._tokenizer.token_to_id)
        threads = threads or FreeCores(physical_cores()).threads()  # a session keeps as many as it began with
        self._graph = Graph(path, _context_length(folder, context_length), threads, provider)
        self.context_length = self._graph.context_length

    def render(self, messages: Sequence[Message]) -> str:
        return self._chat.render(messages)

    def tokenize(self, prompt: str) -> list[int]:
        return self._ids(prompt, True)

    def text_of(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def special_ids(self) -> SpecialIds:
        return read_special_ids(self._folder)

    def logits(self, ids: Sequence[int], *, start: int) -> "npt.NDArray[np.float32]":
        """See ModelBackend."""
        check_context(len(ids), 0, self.context_length)
        rows: npt.NDArray[np.float32] = self._graph.logits(ids, start=start).astype("float32")
        return rows

    def close(self) -> None:
        del self._graph

    def _ids(self, text: str, special: bool) -> list[int]:
        self._tokenizer.encode_special_tokens = not special
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def scores(self, ids: list[int], max_tokens: int) -> "Generator[Scores, int, None]":
        self._graph.make_room(len(ids) + max_tokens)
        scores = self._graph.logits(ids, start=len(ids) - 1)[0]
        self._reused = self._graph.reused
        while True:
            scores = self._graph.step((yield scores))


def read_tokenizer(folder: Path) -> Tokenizer:
    """tokenizer.json, without the truncation and padding that training may have left in it."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{path}: missing; copy it from the model that was exported")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for a file that it cannot read
        raise InputError(f"{path}: not a tokenizer that can be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _context_length(folder: Path, asked: int) -> int:
    trained = read_config(folder, "config.json").get("max_position_embeddings")
    if not isinstance(trained, int):
        if not asked:
            raise InputError(f"{folder / 'config.json'}: no max_position_embeddings: the model's context is unknown")
        return asked
    return min(asked or trained, trained)
